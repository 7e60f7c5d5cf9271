//! The kernel's filter program (classic BPF over `struct seccomp_data`): a search for the number's range, then the
//! comparisons of arguments.
//!
//! A conditional jump reaches 255 instructions, so the search keeps its far branch behind an unconditional one.

use serde::{Deserialize, Serialize};

use super::{Answer, Case, Condition, Operator, ProfileError, Verdict};

/// One instruction, laid out as the kernel's `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[repr(C)]
pub(in crate::runner::native) struct Instruction {
    pub(super) code: u16,
    pub(super) if_true: u8,
    pub(super) if_false: u8,
    pub(super) operand: u32,
}

/// Load a word of the data.
pub(super) const LOAD: u16 = 0x20;
/// Go on `operand` instructions further.
pub(super) const JUMP: u16 = 0x05;
/// Compare the loaded word.
pub(super) const IF_EQUAL: u16 = 0x15;
pub(super) const IF_GREATER: u16 = 0x25;
pub(super) const IF_AT_LEAST: u16 = 0x35;
/// Keep only these bits of the loaded word.
pub(super) const AND: u16 = 0x54;
/// Answer.
pub(super) const RETURN: u16 = 0x06;

/// Where `struct seccomp_data` has what.
const NUMBER: u32 = 0;
const MACHINE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// What the kernel takes.
const MOST: usize = 4096;

/// The program for the ranges of each machine.
pub(super) fn program(
    machines: &[(u32, Vec<(u32, Verdict)>)],
) -> Result<Vec<Instruction>, ProfileError> {
    let mut code = vec![plain(LOAD, MACHINE)];
    for (audit, ranges) in machines {
        let mut body = vec![plain(LOAD, NUMBER)];
        search(ranges, &mut body);
        code.push(branch(IF_EQUAL, *audit, 1, 0));
        code.push(jump(body.len()));
        code.append(&mut body);
    }
    // A machine that the profile does not name.
    code.push(plain(RETURN, Answer::KILL.0));
    if code.len() > MOST {
        return Err(ProfileError::Length(code.len()));
    }
    Ok(code)
}

/// Finds the range of the loaded number by halves.
fn search(ranges: &[(u32, Verdict)], code: &mut Vec<Instruction>) {
    if let [(_, verdict)] = ranges {
        return decide(verdict, code);
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let Some((first, _)) = high.first() else {
        // No ranges at all: nothing is known of any number.
        return code.push(plain(RETURN, Answer::KILL.0));
    };
    let mut lower = Vec::new();
    search(low, &mut lower);
    code.push(branch(IF_AT_LEAST, *first, 0, 1));
    code.push(jump(lower.len()));
    code.append(&mut lower);
    search(high, code);
}

/// The first case that applies.
fn decide(verdict: &Verdict, code: &mut Vec<Instruction>) {
    for (conditions, answer) in &verdict.cases {
        case(&(conditions.clone(), *answer), code);
    }
    code.push(plain(RETURN, verdict.otherwise.0));
}

/// Answers if all conditions hold, else goes on behind.
fn case((conditions, answer): &Case, code: &mut Vec<Instruction>) {
    // From the last one on, since what follows a condition must be known to jump over it.
    let mut rest = vec![plain(RETURN, answer.0)];
    for condition in conditions.iter().rev() {
        let mut compared = compare(condition, rest.len());
        compared.append(&mut rest);
        rest = compared;
    }
    code.append(&mut rest);
}

/// Where a comparison leads.
#[derive(Clone, Copy)]
enum Way {
    /// To the next instruction.
    On,
    /// The condition holds.
    Holds,
    /// It doesn't.
    Fails,
}

/// One condition: falls out at its end if it holds, else jumps over the `behind` instructions that follow it.
fn compare(condition: &Condition, behind: usize) -> Vec<Instruction> {
    use Way::{Fails, Holds, On};
    let at = ARGUMENTS + 8 * condition.index;
    let (low, high) = halves(condition.value);
    // Both machines are little-endian: the high half comes second.
    let (load_low, load_high) = (Step::Plain(LOAD, at), Step::Plain(LOAD, at + 4));
    let equal = |high: u32, low: u32, same: Way, other: Way| {
        vec![
            load_high,
            Step::If(IF_EQUAL, high, On, other),
            load_low,
            Step::If(IF_EQUAL, low, same, other),
        ]
    };
    // Above the value in the high half: `above`; equal there: as the low half says.
    let ordered = |above: Way, below: Way, last: Step| {
        vec![
            load_high,
            Step::If(IF_GREATER, high, above, On),
            Step::If(IF_EQUAL, high, On, below),
            load_low,
            last,
        ]
    };
    let steps = match condition.op {
        Operator::Equal => equal(high, low, Holds, Fails),
        Operator::NotEqual => equal(high, low, Fails, Holds),
        Operator::Greater => ordered(Holds, Fails, Step::If(IF_GREATER, low, Holds, Fails)),
        Operator::GreaterOrEqual => ordered(Holds, Fails, Step::If(IF_AT_LEAST, low, Holds, Fails)),
        Operator::Less => ordered(Fails, Holds, Step::If(IF_AT_LEAST, low, Fails, Holds)),
        Operator::LessOrEqual => ordered(Fails, Holds, Step::If(IF_GREATER, low, Fails, Holds)),
        Operator::MaskedEqual => {
            let (wanted_low, wanted_high) = halves(condition.value_two.unwrap_or(0));
            vec![
                load_high,
                Step::Plain(AND, high),
                Step::If(IF_EQUAL, wanted_high, On, Fails),
                load_low,
                Step::Plain(AND, low),
                Step::If(IF_EQUAL, wanted_low, Holds, Fails),
            ]
        }
    };
    let end = steps.len();
    let resolve = |(number, step): (usize, Step)| match step {
        Step::Plain(code, operand) => plain(code, operand),
        Step::If(code, operand, yes, no) => {
            let distance = |way| match way {
                On => 0,
                Holds => end - number - 1,
                Fails => end - number - 1 + behind,
            };
            branch(code, operand, distance(yes), distance(no))
        }
    };
    steps.into_iter().enumerate().map(resolve).collect()
}

#[derive(Clone, Copy)]
enum Step {
    Plain(u16, u32),
    If(u16, u32, Way, Way),
}

fn halves(value: u64) -> (u32, u32) {
    (value as u32, (value >> 32) as u32)
}

fn plain(code: u16, operand: u32) -> Instruction {
    Instruction {
        code,
        if_true: 0,
        if_false: 0,
        operand,
    }
}

fn branch(code: u16, operand: u32, if_true: usize, if_false: usize) -> Instruction {
    // Six conditions of six instructions each, and an answer: far below 255.
    let near = |distance: usize| u8::try_from(distance).expect("a case is short");
    Instruction {
        code,
        if_true: near(if_true),
        if_false: near(if_false),
        operand,
    }
}

fn jump(distance: usize) -> Instruction {
    // A program has at most 4096 instructions, else it is refused.
    plain(JUMP, distance as u32)
}
