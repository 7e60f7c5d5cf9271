//! A seccomp profile in the terms of an OCI runtime configuration, compiled to the kernel's filter program.
//!
//! What it knows: the actions "allow" and "fail with an error number", conditions on arguments, and the architectures of
//! x86_64 and aarch64 machines. Names that an architecture lacks are skipped, as runtimes do. A call that is younger than
//! all that the profile names is answered with ENOSYS instead of the default: C libraries then fall back to an older one.

mod names;
mod program;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;

pub(super) use program::Instruction;

use names::{ABIS, Abi};

/// `linux.seccomp` of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Profile {
    default_action: Action,
    default_errno_ret: Option<u32>,
    architectures: Vec<String>,
    syscalls: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    names: Vec<String>,
    action: Action,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Vec<Condition>,
}

/// What is to happen with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum Action {
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
}

/// A comparison of one argument, all 64 bits of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Condition {
    index: u32,
    value: u64,
    value_two: Option<u64>,
    op: Operator,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum Operator {
    #[serde(rename = "SCMP_CMP_NE")]
    NotEqual,
    #[serde(rename = "SCMP_CMP_LT")]
    Less,
    #[serde(rename = "SCMP_CMP_LE")]
    LessOrEqual,
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    #[serde(rename = "SCMP_CMP_GE")]
    GreaterOrEqual,
    #[serde(rename = "SCMP_CMP_GT")]
    Greater,
    /// The argument's bits in `value` are `value_two`.
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEqual,
}

/// Why a profile cannot be compiled.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum ProfileError {
    #[error("system calls of the architecture {0} are not known")]
    Architecture(String),
    #[error("the rules for the system call {0} contradict each other")]
    Contradiction(String),
    #[error("system calls have six arguments, a rule asks for number {0}")]
    Argument(u32),
    #[error("the filter is too long: {0} instructions")]
    Length(usize),
}

/// What a filter answers, as the kernel encodes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Answer(u32);

impl Answer {
    const ALLOW: Self = Self(0x7fff_0000);
    const KILL: Self = Self(0x8000_0000);

    const fn errno(number: u32) -> Self {
        Self(0x0005_0000 | (number & 0xffff))
    }
}

/// Conditions that must all hold, and the answer then.
type Case = (Vec<Condition>, Answer);

/// What is done with one number or a range of them: the answer of the first case that applies, else the default.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Verdict {
    cases: Vec<Case>,
    otherwise: Answer,
}

impl Verdict {
    fn always(answer: Answer) -> Self {
        Self {
            cases: Vec::new(),
            otherwise: answer,
        }
    }
}

/// The filter that was compiled last: nearly all steps have the same profile.
#[derive(Debug, Default)]
pub(super) struct Filters {
    last: Mutex<Option<(Profile, Vec<Instruction>)>>,
}

impl Filters {
    /// The filter for a profile.
    pub(super) fn of(&self, profile: Profile) -> Result<Vec<Instruction>, ProfileError> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, filter)) = &*last
            && *known == profile
        {
            return Ok(filter.clone());
        }
        let filter = compile(&profile)?;
        *last = Some((profile, filter.clone()));
        Ok(filter)
    }
}

/// Compiles a profile.
fn compile(profile: &Profile) -> Result<Vec<Instruction>, ProfileError> {
    let mut machines: BTreeMap<u32, Vec<(u32, Verdict)>> = BTreeMap::new();
    for name in &profile.architectures {
        let abi = ABIS.iter().find(|abi| abi.name == name);
        let abi = abi.ok_or_else(|| ProfileError::Architecture(name.clone()))?;
        machines
            .entry(abi.audit)
            .or_default()
            .extend(profile.verdicts(abi)?);
    }
    let otherwise = Verdict::always(profile.otherwise());
    let machines = machines.into_iter().map(|(audit, mut ranges)| {
        ranges.sort_by_key(|(first, _)| *first);
        if ranges.first().is_none_or(|(first, _)| *first > 0) {
            ranges.insert(0, (0, otherwise.clone()));
        }
        ranges.dedup_by(|next, last| next.1 == last.1);
        (audit, ranges)
    });
    program::program(&machines.collect::<Vec<_>>())
}

impl Profile {
    /// The answer to calls that no rule is about.
    fn otherwise(&self) -> Answer {
        answer(self.default_action, self.default_errno_ret)
    }

    /// What becomes of the numbers of one architecture, as ranges: each begins where its number says and ends where the
    /// next one begins.
    fn verdicts(&self, abi: &Abi) -> Result<Vec<(u32, Verdict)>, ProfileError> {
        let mut named: BTreeMap<u32, Vec<Case>> = BTreeMap::new();
        for rule in &self.syscalls {
            if let Some(wrong) = rule.args.iter().find(|condition| condition.index > 5) {
                return Err(ProfileError::Argument(wrong.index));
            }
            for name in &rule.names {
                let Some(number) = (abi.number)(name) else {
                    continue;
                };
                let case = (rule.args.clone(), answer(rule.action, rule.errno_ret));
                named.entry(number).or_default().push(case);
            }
        }
        let otherwise = Verdict::always(self.otherwise());
        let mut ranges = vec![(abi.first, otherwise.clone())];
        let mut youngest = abi.first;
        for (number, cases) in named {
            let verdict = self
                .verdict(cases)
                .ok_or_else(|| ProfileError::Contradiction(format!("{number} of {}", abi.name)))?;
            if ranges.last().is_some_and(|(first, _)| *first == number) {
                ranges.pop();
            }
            ranges.push((number, verdict));
            ranges.push((number + 1, otherwise.clone()));
            youngest = number;
        }
        if self.default_action == Action::Errno {
            if ranges
                .last()
                .is_some_and(|(first, _)| *first == youngest + 1)
            {
                ranges.pop();
            }
            let unknown = Verdict::always(Answer::errno(libc::ENOSYS.cast_unsigned()));
            ranges.push((youngest + 1, unknown));
        }
        Ok(ranges)
    }

    /// A case without conditions applies always, whatever conditions others have; different answers must not compete.
    fn verdict(&self, cases: Vec<Case>) -> Option<Verdict> {
        let (always, sometimes): (Vec<Case>, Vec<Case>) = cases
            .into_iter()
            .partition(|(conditions, _)| conditions.is_empty());
        let Some((_, answer)) = always.first() else {
            let first = sometimes.first()?.1;
            let agreed = sometimes.iter().all(|(_, answer)| *answer == first);
            return agreed.then_some(Verdict {
                cases: sometimes,
                otherwise: self.otherwise(),
            });
        };
        let agreed = always
            .iter()
            .chain(&sometimes)
            .all(|(_, other)| other == answer);
        agreed.then(|| Verdict::always(*answer))
    }
}

fn answer(action: Action, errno: Option<u32>) -> Answer {
    match action {
        Action::Allow => Answer::ALLOW,
        Action::Errno => Answer::errno(errno.unwrap_or(libc::EPERM.cast_unsigned())),
    }
}
