//! Which stages one platform needs, and in what order.

use std::collections::{BTreeMap, BTreeSet};

use buildyard_image::ImageConfig;
use buildyard_llb::build::Output;
use buildyard_model::Platform;

use super::resolve;
use super::stage::{Running, Stage};
use super::stages::Stages;
use super::work::Work;
use crate::error::{ConvertError, Problem};
use crate::instruction::{self, Instruction, Kind};
use crate::options;
use crate::suggest::nearest;

/// A platform to build for.
#[derive(Debug, Clone)]
pub(super) struct TargetPlatform {
    pub(super) platform: Platform,
    /// Nobody asked for it: the image keeps its base's platform.
    pub(super) implicit: bool,
}

/// What all stages of one platform know.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) platform: Platform,
    pub(super) implicit: bool,
    /// Predefined arguments and those declared before the first stage.
    pub(super) globals: BTreeMap<String, String>,
    /// `SOURCE_DATE_EPOCH` in seconds.
    pub(super) epoch: Option<i64>,
}

/// The stages of one platform.
pub(super) struct Plan {
    pub(super) target: Target,
    pub(super) stages: Stages,
    /// The stage asked for.
    goal: usize,
}

/// What came out for one platform.
pub(super) struct Outcome {
    pub(super) platform: Platform,
    pub(super) output: Option<Output>,
    pub(super) config: ImageConfig,
}

impl Plan {
    /// Finds out what is needed. Images that are not known yet are put into `work.requests`; then the plan is not complete.
    pub(super) fn new(work: &mut Work<'_>, target: TargetPlatform) -> Result<Self, ConvertError> {
        let target = globals(work, target)?;
        let mut stages = Stages::default();
        for (number, stage) in work.file.stages.iter().enumerate() {
            let stage = declared(work, &target, &stages, stage, number)?;
            let name = work.file.stages[number].name.as_deref();
            stages.add(stage, name);
        }
        let goal = stages.goal(work.options.target.as_deref())?;
        for (number, stage) in work.file.stages.iter().enumerate() {
            for instruction in &stage.instructions {
                let command = stages.command(instruction.clone(), false)?;
                stages.attach(number, command);
            }
        }
        stages.check_cycles()?;
        if let [only] = &mut stages.list[..] {
            only.numbering.stage.clear();
        }
        let mut plan = Self {
            target,
            stages,
            goal,
        };
        resolve::resolve(&mut plan, work)?;
        Ok(plan)
    }

    /// The stages that the goal needs, itself included.
    pub(super) fn reachable(&self) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        let mut open = vec![self.goal];
        while let Some(number) = open.pop() {
            if found.insert(number) {
                let stage = &self.stages.list[number];
                open.extend(stage.base);
                open.extend(stage.needs.keys());
            }
        }
        found
    }

    /// Converts the stages that are needed.
    pub(super) fn run(mut self, work: &mut Work<'_>) -> Result<Outcome, ConvertError> {
        for number in self.reachable() {
            if self.stages.list[number].done {
                continue;
            }
            self.stages.inherit(number, work)?;
            let stage = self.stages.list[number].clone();
            let lines = stage.lines;
            let running = Running {
                work: &mut *work,
                target: &self.target,
                stage,
                sources: Vec::new(),
                lines,
            };
            self.stages.list[number] = running.run(|numbers| self.stages.sources(numbers))?;
        }
        Ok(self.outcome(work))
    }

    fn outcome(mut self, work: &Work<'_>) -> Outcome {
        let goal = self.stages.list.swap_remove(self.goal);
        let mut config = goal.image;
        if !work.options.labels.is_empty() {
            let labels = config.config.labels.get_or_insert_default();
            labels.extend(
                work.options
                    .labels
                    .iter()
                    .map(|(name, value)| (name.clone(), value.clone())),
            );
        }
        if !self.target.implicit {
            let wanted = &self.target.platform;
            let same = config.os == wanted.os && config.architecture == wanted.architecture;
            config.os.clone_from(&wanted.os);
            config.architecture.clone_from(&wanted.architecture);
            if !same || !wanted.variant.is_empty() {
                config.variant.clone_from(&wanted.variant);
            }
            if !same {
                config.os_version.clear();
            }
        }
        let platform = Platform::new(&config.os, &config.architecture, &config.variant);
        config.os.clone_from(&platform.os);
        config.architecture.clone_from(&platform.architecture);
        config.variant.clone_from(&platform.variant);
        let platform = if self.target.implicit {
            platform
        } else {
            self.target.platform
        };
        Outcome {
            platform,
            output: goal.state.output,
            config,
        }
    }
}

/// The arguments that FROM can use, and that stages can declare again.
fn globals(work: &mut Work<'_>, target: TargetPlatform) -> Result<Target, ConvertError> {
    let options = work.options;
    let stage = options.target.as_deref().or(work
        .file
        .stages
        .last()
        .and_then(|stage| stage.name.as_deref()));
    let mut globals = predefined(
        &options.build_platform,
        &target.platform,
        stage.unwrap_or("default"),
    );
    for (name, value) in &mut globals {
        if let Some(given) = options.build_args.get(name) {
            value.clone_from(given);
        }
    }
    for global in &work.file.globals {
        for argument in &global.arguments {
            let value = match (options.build_args.get(&argument.name), &argument.default) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => Some(
                    work.expand(default, &globals)
                        .map_err(|p| p.at(global.lines))?,
                ),
                (None, None) => None,
            };
            globals.extend(value.map(|value| (argument.name.clone(), value)));
        }
    }
    let epoch = match globals
        .get("SOURCE_DATE_EPOCH")
        .filter(|value| !value.is_empty())
    {
        Some(value) if options.epoch.is_none() => {
            Some(options::epoch(value).map_err(|problem| {
                Problem::Invalid(format!("invalid SOURCE_DATE_EPOCH: {problem}"))
            })?)
        }
        _ => options.epoch,
    };
    Ok(Target {
        platform: target.platform,
        implicit: target.implicit,
        globals,
        epoch,
    })
}

fn predefined(build: &Platform, target: &Platform, stage: &str) -> BTreeMap<String, String> {
    [
        ("BUILDPLATFORM", build.to_string()),
        ("BUILDOS", build.os.clone()),
        ("BUILDOSVERSION", String::new()),
        ("BUILDARCH", build.architecture.clone()),
        ("BUILDVARIANT", build.variant.clone()),
        ("TARGETPLATFORM", target.to_string()),
        ("TARGETOS", target.os.clone()),
        ("TARGETOSVERSION", String::new()),
        ("TARGETARCH", target.architecture.clone()),
        ("TARGETVARIANT", target.variant.clone()),
        ("TARGETSTAGE", stage.to_owned()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

/// A stage of the file before its instructions are looked at.
fn declared(
    work: &mut Work<'_>,
    target: &Target,
    stages: &Stages,
    stage: &instruction::Stage,
    number: usize,
) -> Result<Stage, ConvertError> {
    let at = |problem: Problem| problem.at(stage.lines);
    let base_name = work.expand(&stage.base, &target.globals).map_err(at)?;
    if base_name.is_empty() {
        return Err(at(Problem::BlankBase(stage.base.clone())));
    }
    let platform = stage
        .platform
        .as_deref()
        .map(|text| from_platform(work, target, text))
        .transpose()
        .map_err(at)?;
    let base = stages.find(&base_name);
    let makes_step = |i: &Instruction| {
        matches!(
            i.kind,
            Kind::Add(_) | Kind::Copy(_) | Kind::Run(_) | Kind::Workdir(_)
        )
    };
    let from = usize::from(base.is_none() && base_name != resolve::SCRATCH);
    let name = stage.name.clone().unwrap_or_default();
    let mut new = Stage::new(base_name, stage.lines);
    new.base = base;
    new.platform = platform;
    new.original.clone_from(&stage.original);
    new.ignore_cache = work.options.no_cache.includes(&name);
    new.label = if name.is_empty() {
        format!("stage-{number}")
    } else {
        name
    };
    new.numbering.stage.clone_from(&new.label);
    new.numbering.total = from + stage.instructions.iter().filter(|i| makes_step(i)).count();
    new.numbering.multi_platform = work.options.multi_platform;
    Ok(new)
}

/// The platform of `FROM --platform`.
fn from_platform(work: &mut Work<'_>, target: &Target, text: &str) -> Result<Platform, Problem> {
    let expression = text.to_owned();
    let how = crate::expand::Expander::new(work.file.escape);
    let found = work.expand_with(how, text, &target.globals)?;
    if found.text.is_empty() {
        let known = || target.globals.keys().map(String::as_str);
        let suggestion = found.missing.iter().find_map(|name| nearest(name, known()));
        return Err(Problem::EmptyPlatform {
            expression,
            suggestion,
        });
    }
    found.text.parse().map_err(|error| Problem::BadPlatform {
        expression,
        problem: format!("{error}"),
    })
}
