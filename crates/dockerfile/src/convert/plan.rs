//! Which stages one platform needs, and in what order.

use std::collections::{BTreeMap, BTreeSet};

use buildyard_image::ImageConfig;
use buildyard_llb::build::Output;
use buildyard_model::Platform;

use super::resolve;
use super::stage::{Command, Running, SourceStage, Stage, State};
use super::work::Work;
use crate::error::{ConvertError, Problem};
use crate::instruction::{self, Instruction, Kind};
use crate::limits;
use crate::options;
use crate::position::Lines;
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

/// Stages by number and name.
#[derive(Default)]
pub(super) struct Stages {
    pub(super) list: Vec<Stage>,
    names: BTreeMap<String, usize>,
    images: BTreeMap<String, usize>,
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

impl Stages {
    fn add(&mut self, mut stage: Stage, name: Option<&str>) -> usize {
        if stage.base.is_none() {
            stage.base = self.find(&stage.base_name);
        }
        self.list.push(stage);
        let number = self.list.len() - 1;
        if let Some(name) = name {
            self.names.insert(name.to_lowercase(), number);
        }
        number
    }

    /// The last stage above that has this name.
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.names.get(&name.to_lowercase()).copied()
    }

    fn labels(&self) -> impl Iterator<Item = &str> {
        self.list
            .iter()
            .map(|stage| stage.label.as_str())
            .filter(|label| !label.is_empty())
    }

    /// The stage asked for: by name, else by number, else the last one.
    fn goal(&self, target: Option<&str>) -> Result<usize, ConvertError> {
        let Some(target) = target else {
            return Ok(self.list.len() - 1);
        };
        let number = || {
            target
                .parse::<usize>()
                .ok()
                .filter(|&number| number < self.list.len())
        };
        self.find(target).or_else(number).ok_or_else(|| {
            let suggestion = nearest(target, self.labels());
            Problem::UnknownTarget {
                target: target.to_owned(),
                suggestion,
            }
            .into()
        })
    }

    /// An instruction with its sources found; images that nobody named before become stages.
    pub(super) fn command(
        &mut self,
        instruction: Instruction,
        on_build: bool,
    ) -> Result<Command, ConvertError> {
        let lines = instruction.lines;
        let sources = match &instruction.kind {
            Kind::Copy(copy) => copy
                .from
                .iter()
                .map(|from| self.copy_source(from, lines).map(Some))
                .collect(),
            Kind::Run(run) => run
                .mounts
                .iter()
                .map(|mount| {
                    mount
                        .from
                        .as_ref()
                        .map(|from| self.named_source(from, lines))
                        .transpose()
                })
                .collect(),
            _ => Ok(Vec::new()),
        };
        Ok(Command {
            instruction,
            sources: sources.map_err(|problem| problem.at(lines))?,
            on_build,
        })
    }

    /// Gives a command to a stage. Returns whether the stage needs more stages now.
    pub(super) fn attach(&mut self, number: usize, command: Command) -> bool {
        let stage = &mut self.list[number];
        let before = stage.needs.len();
        for source in command.sources.iter().flatten() {
            stage
                .needs
                .entry(*source)
                .or_insert(command.instruction.lines);
        }
        stage.commands.push(command);
        stage.needs.len() > before
    }

    fn copy_source(&mut self, from: &str, lines: Lines) -> Result<usize, Problem> {
        match from.parse::<usize>() {
            Ok(number) if number < self.list.len() => Ok(number),
            Ok(_) => Err(Problem::UnknownIndex(from.to_owned())),
            Err(_) => self.named_source(from, lines),
        }
    }

    fn named_source(&mut self, from: &str, lines: Lines) -> Result<usize, Problem> {
        if let Some(number) = self.find(from).or_else(|| self.images.get(from).copied()) {
            return Ok(number);
        }
        if self.list.len() >= limits::STAGES {
            return Err(Problem::TooMuch {
                what: "stages and images",
                limit: limits::STAGES,
            });
        }
        let mut stage = Stage::new(from.to_owned(), lines);
        stage.unregistered = true;
        self.list.push(stage);
        self.images.insert(from.to_owned(), self.list.len() - 1);
        Ok(self.list.len() - 1)
    }

    /// Refuses stages that need themselves.
    pub(super) fn check_cycles(&self) -> Result<(), ConvertError> {
        // Stages that only need stages that are sound are sound. Take those away until nothing changes.
        let mut open: Vec<usize> = (0..self.list.len()).collect();
        let mut sound = vec![false; self.list.len()];
        loop {
            let before = open.len();
            open.retain(|&number| {
                let stage = &self.list[number];
                sound[number] = stage
                    .base
                    .iter()
                    .chain(stage.needs.keys())
                    .all(|&other| sound[other]);
                !sound[number]
            });
            match open.first() {
                None => return Ok(()),
                Some(&first) if open.len() == before => return Err(self.cycle(first, &sound)),
                Some(_) => {}
            }
        }
    }

    /// The cycle that is reached from a stage that is not sound.
    fn cycle(&self, start: usize, sound: &[bool]) -> ConvertError {
        let mut seen = BTreeSet::new();
        let mut number = start;
        loop {
            let stage = &self.list[number];
            let next = stage
                .base
                .iter()
                .chain(stage.needs.keys())
                .copied()
                .find(|&other| !sound[other]);
            let lines = next
                .and_then(|next| stage.needs.get(&next).copied())
                .unwrap_or(stage.lines);
            match next {
                Some(next) if seen.insert(number) => number = next,
                _ => return Problem::Cycle(stage.label.clone()).at(lines),
            }
        }
    }

    /// Copies what a stage takes over from the stage it starts from.
    pub(super) fn inherit(
        &mut self,
        number: usize,
        work: &mut Work<'_>,
    ) -> Result<(), ConvertError> {
        let Some(base) = self.list[number].base else {
            return Ok(());
        };
        let base = &self.list[base];
        let size = base.state.env.bytes()
            + base
                .image
                .history
                .iter()
                .map(|h| h.created_by.len())
                .sum::<usize>();
        let (state, platform, image) = (
            base.state.clone(),
            base.platform.clone(),
            base.image.clone(),
        );
        let arguments = base.arguments.clone();
        let stage = &mut self.list[number];
        work.spend(size)
            .map_err(|problem| problem.at(stage.lines))?;
        stage.state = state;
        stage.platform = platform;
        stage.image = image;
        stage.image.config.on_build = None;
        stage.arguments = arguments;
        Ok(())
    }

    fn sources(&self, numbers: &[Option<usize>]) -> Vec<Option<SourceStage>> {
        let source = |number: usize| {
            let stage = &self.list[number];
            let label = if stage.label.is_empty() {
                stage.base_name.clone()
            } else {
                stage.label.clone()
            };
            SourceStage {
                label,
                done: stage.done,
                output: stage.state.output,
            }
        };
        numbers.iter().map(|number| number.map(source)).collect()
    }
}

impl Stage {
    /// A stage without instructions.
    pub(super) fn new(base_name: String, lines: Lines) -> Self {
        Self {
            base_name,
            lines,
            original: String::new(),
            label: String::new(),
            base: None,
            needs: BTreeMap::new(),
            commands: Vec::new(),
            platform: None,
            unregistered: false,
            resolved: false,
            triggers_taken: false,
            done: false,
            ignore_cache: false,
            state: State {
                dir: "/".to_owned(),
                ..State::default()
            },
            numbering: Default::default(),
            image: ImageConfig::default(),
            arguments: Vec::new(),
            has_cmd: false,
        }
    }
}
