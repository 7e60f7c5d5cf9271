//! What this machine runs steps with: snapshots, a runner, its platforms, its cache mounts.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use buildyard_layer::FlatFiles;
use buildyard_model::Platform;

use super::caches::Caches;
use crate::agent::Offered;
use crate::emulation::{
    EmulationConfig, Emulator, EmulatorKind, Platforms, probe as probe_platforms,
};
use crate::network::{PrivateNetwork, StepNetwork};
use crate::runner::{Limits, RunnerChoice, Runners, check_memory_groups};
use crate::snapshots::{self, Snapshotter, SnapshotterChoice};

/// How to set the machine up.
pub(in crate::agent) struct ExecutorConfig {
    /// Directory for everything that steps need.
    pub(in crate::agent) data: PathBuf,
    /// How layers are made ready to mount.
    pub(in crate::agent) snapshotter: SnapshotterChoice,
    /// Where files' bytes are.
    pub(in crate::agent) flats: FlatFiles,
    /// Register emulators with the machine's kernel where no other way works.
    pub(in crate::agent) allow_host_binfmt: bool,
    /// Most memory of one step, in bytes.
    pub(in crate::agent) step_memory: Option<u64>,
    /// What steps are run by.
    pub(in crate::agent) runner: RunnerChoice,
}

/// What steps are run with.
pub(in crate::agent) struct Executor {
    pub(super) snapshots: Arc<dyn Snapshotter>,
    pub(super) runner: Arc<Runners>,
    pub(super) caches: Caches,
    pub(super) limits: Limits,
    platforms: Platforms,
    private_network: Option<Arc<PrivateNetwork>>,
}

impl Executor {
    /// Probes the machine and opens its directories.
    ///
    /// # Errors
    /// Steps cannot be run here: no overlay mounts in the data directory, no runtime, no control groups for the limits.
    pub(in crate::agent) async fn start(config: ExecutorConfig) -> anyhow::Result<Self> {
        tokio::task::spawn_blocking(move || Self::open(&config))
            .await
            .expect("opening does not panic")
    }

    fn open(config: &ExecutorConfig) -> anyhow::Result<Self> {
        if config.step_memory.is_some() {
            check_memory_groups().context("the memory of a step cannot be limited here")?;
        }
        // One after the other: a process that another thread starts meanwhile would hold for a moment what these make and give
        // up again: mounts, names, a program that is being written.
        let snapshots = snapshots::choose(config.snapshotter, &config.data, &config.flats)
            .map_err(anyhow::Error::from_boxed)
            .context("steps cannot be run in this data directory")?;
        let runner = Runners::open(&config.runner, &config.data.join("run"))?;
        let platforms = Self::probe(config, &runner);
        let private_network = PrivateNetwork::open(&config.data).map(Arc::new);
        if let Err(error) = &private_network {
            tracing::warn!(
                error = error as &dyn std::error::Error,
                "steps have no network here, unless they use the machine's"
            );
        }
        Ok(Self {
            snapshots,
            runner: Arc::new(runner),
            caches: Caches::open(config.data.join("caches"))?,
            limits: Limits {
                memory: config.step_memory,
                ..Limits::default()
            },
            platforms,
            private_network: private_network.ok(),
        })
    }

    /// The platforms that steps can be run for by `runner`.
    fn probe(config: &ExecutorConfig, runner: &Runners) -> Platforms {
        let search = std::env::var_os("PATH")
            .map(|path| std::env::split_paths(&path).collect())
            .unwrap_or_default();
        let mut platforms = probe_platforms(&EmulationConfig {
            search,
            register_on_host: config.allow_host_binfmt,
            disabled: false,
        });
        if !runner.enters_user_namespaces() {
            platforms.without_user_namespaces();
        }
        for problem in &platforms.problems {
            tracing::warn!(problem, "a platform cannot be emulated");
        }
        platforms
    }

    /// Kills what still runs and waits until nothing of it is left.
    pub(in crate::agent) async fn close(&self) {
        self.runner.close().await;
    }

    /// Where layers are made ready.
    pub(in crate::agent) fn snapshots(&self) -> Arc<dyn Snapshotter> {
        self.snapshots.clone()
    }

    /// What this machine can run.
    pub(in crate::agent) fn platforms(&self) -> Vec<Offered> {
        let native = self.platforms.native.iter().map(|platform| Offered {
            platform: platform.clone(),
            emulator: String::new(),
        });
        let emulated = self
            .platforms
            .emulated
            .iter()
            .map(|(platform, emulator)| Offered {
                platform: platform.clone(),
                emulator: describe(emulator),
            });
        native.chain(emulated).collect()
    }

    /// The network of steps that ask for none in particular.
    pub(super) fn network(&self) -> StepNetwork {
        let private = self.private_network.clone();
        private.map_or(StepNetwork::None, StepNetwork::Private)
    }

    /// What networks steps can have here, for people.
    pub(in crate::agent) fn networks(&self, host: bool) -> Vec<String> {
        let mut networks = vec!["none".to_owned()];
        if self.private_network.is_some() {
            networks.push("private".to_owned());
        }
        if host {
            networks.push("host".to_owned());
        }
        networks
    }

    /// What runs `platform` here: nothing but the processor, an emulator; `None` if nothing does.
    pub(super) fn emulator(&self, platform: &Platform) -> Option<Option<&Emulator>> {
        self.platforms.emulator(platform)
    }
}

/// An emulator in a few words.
pub(super) fn describe(emulator: &Emulator) -> String {
    let how = match emulator.kind {
        EmulatorKind::Registered => "registered with the machine",
        EmulatorKind::UserNamespace => "in a user namespace",
        EmulatorKind::HostRegistration => "registered with the machine by the worker",
    };
    format!("{} ({how})", emulator.name)
}
