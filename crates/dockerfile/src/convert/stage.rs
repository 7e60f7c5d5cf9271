//! A stage while it is converted.

use std::collections::BTreeMap;

use buildyard_image::{ContainerConfig, History, ImageConfig};
use buildyard_llb::build::Output;
use buildyard_model::Platform;

use super::env::{Env, split};
use super::name::Numbering;
use super::plan::Target;
use super::work::Work;
use super::{config, path, run, transfer};
use crate::error::{ConvertError, Problem};
use crate::instruction::{Argument, Instruction, Kind};
use crate::position::Lines;

/// The search path of an image that sets none.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A stage of the file, or an image that only `--from` names.
#[derive(Debug, Clone)]
pub(super) struct Stage {
    /// Its base as an image reference or the name of a stage, variables expanded.
    pub(super) base_name: String,
    /// The FROM instruction, or the one that names the image.
    pub(super) lines: Lines,
    /// FROM as written; empty for an image that only `--from` names.
    pub(super) original: String,
    /// What it is called: its name, or `stage-N`.
    pub(super) label: String,
    /// The stage that it starts from.
    pub(super) base: Option<usize>,
    /// The stages that its instructions copy or mount from, and where.
    pub(super) needs: BTreeMap<usize, Lines>,
    /// Its instructions, triggers first.
    pub(super) commands: Vec<Command>,
    /// The platform that it runs on.
    pub(super) platform: Option<Platform>,
    /// Only `--from` names it.
    pub(super) unregistered: bool,
    /// Its base image was looked up.
    pub(super) resolved: bool,
    /// The triggers of the stage it starts from were taken.
    pub(super) triggers_taken: bool,
    /// It has its final state.
    pub(super) done: bool,
    /// Its steps run again even if they are known.
    pub(super) ignore_cache: bool,
    pub(super) state: State,
    pub(super) numbering: Numbering,
    /// The configuration so far.
    pub(super) image: ImageConfig,
    /// Arguments declared so far, for the history of RUN.
    pub(super) arguments: Vec<Argument>,
    /// CMD was set in this stage.
    pub(super) has_cmd: bool,
}

/// An instruction and where its sources come from.
#[derive(Debug, Clone)]
pub(super) struct Command {
    pub(super) instruction: Instruction,
    /// The stage of COPY's `--from`, or of each mount's `from`.
    pub(super) sources: Vec<Option<usize>>,
    pub(super) on_build: bool,
}

/// What the next operation of a stage starts from.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    /// The file system; `None` is `scratch`.
    pub(super) output: Option<Output>,
    pub(super) env: Env,
    /// Absolute working directory.
    pub(super) dir: String,
    pub(super) user: String,
    /// The platform that is shown in names: that of the base image, none on `scratch`.
    pub(super) shown_platform: Option<Platform>,
}

/// Another stage as a source of files.
#[derive(Debug, Clone)]
pub(super) struct SourceStage {
    pub(super) label: String,
    pub(super) done: bool,
    pub(super) output: Option<Output>,
}

/// One stage on its way through its instructions.
pub(super) struct Running<'w, 'f> {
    pub(super) work: &'w mut Work<'f>,
    pub(super) target: &'w Target,
    pub(super) stage: Stage,
    /// The sources of the current instruction.
    pub(super) sources: Vec<Option<SourceStage>>,
    /// The lines of the current instruction.
    pub(super) lines: Lines,
}

impl Running<'_, '_> {
    /// Brings the stage to its end; `sources_of` looks other stages up.
    pub(super) fn run(
        mut self,
        sources_of: impl Fn(&[Option<usize>]) -> Vec<Option<SourceStage>>,
    ) -> Result<Stage, ConvertError> {
        let lines = self.stage.lines;
        self.enter().map_err(|problem| problem.at(lines))?;
        for command in std::mem::take(&mut self.stage.commands) {
            self.sources = sources_of(&command.sources);
            self.lines = command.instruction.lines;
            self.stage.numbering.on_build = command.on_build;
            self.instruction(&command.instruction)
                .map_err(|problem| problem.at(command.instruction.lines))?;
        }
        self.stage.done = true;
        Ok(self.stage)
    }

    /// Takes environment, directory and user from the configuration of the base.
    fn enter(&mut self) -> Result<(), Problem> {
        let config = &mut self.stage.image.config;
        let env = config.env.get_or_insert_default();
        if !env.iter().any(|entry| split(entry).0 == "PATH") {
            env.push(DEFAULT_PATH.to_owned());
        }
        for entry in env.iter() {
            let (name, value) = split(entry);
            self.stage.state.env.set(name, value);
        }
        if !config.working_dir.is_empty() {
            let dir = path::normalize("/", &config.working_dir, false);
            config.working_dir.clone_from(&dir);
            self.stage.state.dir = dir;
        }
        if !config.user.is_empty() {
            self.stage.state.user.clone_from(&config.user);
        }
        self.work.spend(self.stage.state.env.bytes())
    }

    fn instruction(&mut self, instruction: &Instruction) -> Result<(), Problem> {
        let original = &instruction.original;
        match &instruction.kind {
            Kind::Add(copy) => transfer::copy(self, copy, true, original),
            Kind::Copy(copy) => transfer::copy(self, copy, false, original),
            Kind::Run(command) => run::run(self, command, original),
            Kind::Workdir(path) => config::workdir(self, path, original),
            // The parser puts it elsewhere.
            Kind::From(_) => Ok(()),
            other => config::configure(self, other),
        }
    }

    /// Expands a word with the stage's variables.
    pub(super) fn expand(&mut self, word: &str) -> Result<String, Problem> {
        self.work.expand(word, &self.stage.state.env)
    }

    /// Adds a line to the image's history.
    pub(super) fn history(&mut self, created_by: String, empty_layer: bool) -> Result<(), Problem> {
        self.work.spend(created_by.len())?;
        self.stage.image.history.push(History {
            created: self.target.epoch.map(rfc3339),
            created_by,
            comment: "buildkit.dockerfile.v0".to_owned(),
            empty_layer,
            ..History::default()
        });
        Ok(())
    }

    pub(super) fn config(&mut self) -> &mut ContainerConfig {
        &mut self.stage.image.config
    }

    /// The platform of the stage's steps.
    pub(super) fn platform(&self) -> Platform {
        self.stage
            .platform
            .clone()
            .unwrap_or_else(|| self.target.platform.clone())
    }

    /// The time that file operations write, in nanoseconds; -1 leaves it to the engine.
    pub(super) fn timestamp(&self) -> i64 {
        self.target
            .epoch
            .map_or(-1, |seconds| seconds.saturating_mul(1_000_000_000))
    }
}

/// The configuration of `scratch`.
pub(super) fn empty_image(platform: &Platform) -> ImageConfig {
    ImageConfig {
        os: platform.os.clone(),
        architecture: platform.architecture.clone(),
        variant: platform.variant.clone(),
        config: ContainerConfig {
            env: Some(vec![DEFAULT_PATH.to_owned()]),
            working_dir: "/".to_owned(),
            ..ContainerConfig::default()
        },
        ..ImageConfig::default()
    }
}

fn rfc3339(seconds: i64) -> String {
    // The options were checked to hold a time that exists.
    jiff::Timestamp::from_second(seconds)
        .map(|time| time.to_string())
        .unwrap_or_default()
}
