//! The stages of one platform: names, numbers, what needs what.

use std::collections::{BTreeMap, BTreeSet};

use buildyard_image::ImageConfig;

use super::resolve::SCRATCH;
use super::stage::{Command, SourceStage, Stage, State};
use super::work::Work;
use crate::error::{ConvertError, Problem};
use crate::instruction::{Instruction, Kind};
use crate::limits;
use crate::position::Lines;
use crate::suggest::nearest;

/// Stages by number and name.
#[derive(Default)]
pub(super) struct Stages {
    pub(super) list: Vec<Stage>,
    names: BTreeMap<String, usize>,
    images: BTreeMap<String, usize>,
}

impl Stages {
    pub(super) fn add(&mut self, mut stage: Stage, name: Option<&str>) -> usize {
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
    pub(super) fn goal(&self, target: Option<&str>) -> Result<usize, ConvertError> {
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
                .map(|mount| self.mount_source(mount.from.as_deref(), lines))
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

    fn mount_source(&mut self, from: Option<&str>, lines: Lines) -> Result<Option<usize>, Problem> {
        match from {
            Some(from) => self.named_source(from, lines).map(Some),
            None => {
                // BuildKit counts a stage here before it knows that the mount has no source. So a file with one stage and a
                // mount has two, and its steps are shown with the stage's name.
                self.named_source(SCRATCH, lines)?;
                Ok(None)
            }
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
        let size = base.state.env.bytes() + config_bytes(&base.image);
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

    pub(super) fn sources(&self, numbers: &[Option<usize>]) -> Vec<Option<SourceStage>> {
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

/// How much text a configuration holds, about: it is copied for every stage that starts from it.
pub(super) fn config_bytes(image: &ImageConfig) -> usize {
    serde_json::to_vec(image).map_or(0, |text| text.len())
}
