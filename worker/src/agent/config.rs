//! What a worker is started with.

use std::path::PathBuf;
use std::time::Duration;

use buildyard_cas::SizeLimit;
use buildyard_layer::FlatFiles;
use buildyard_model::Platform;
use buildyard_registry::RegistryConfig;
use tonic::transport::Channel;

use crate::runner::RunnerChoice;
use crate::snapshots::SnapshotterChoice;

/// A platform that the worker offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offered {
    /// The platform.
    pub platform: Platform,
    /// Empty where it is native, else what runs it, for people.
    pub emulator: String,
}

/// What a worker is started with.
pub struct WorkerConfig {
    /// Its name, unique in the farm.
    pub name: String,
    /// The way to the coordinator; dialled when needed, dialled again when it breaks.
    pub channel: Channel,
    /// Where layers, flat files and cache mounts lie.
    pub data: PathBuf,
    /// How many steps run at once.
    pub slots: u32,
    /// Offer only these platforms, where given. An empty list is a worker that executes nothing: it does file steps and
    /// reads images.
    pub platforms: Option<Vec<Platform>>,
    /// How layers are made ready for steps.
    pub snapshotter: SnapshotterChoice,
    /// Let steps use the machine's network where their client allows it.
    pub allow_host_network: bool,
    /// Register emulators with the machine's kernel where no other way works.
    pub allow_host_binfmt: bool,
    /// Most memory that one step may use, in bytes.
    pub step_memory: Option<u64>,
    /// What steps are run by.
    pub runner: RunnerChoice,
    /// The coordinator's own flat files, where both are one process; then nothing is uploaded.
    pub shared_flats: Option<FlatFiles>,
    /// Most that unpacked layers, and flat files of its own, may take.
    pub cache_limit: SizeLimit,
    /// How long running steps and uploads may go on when the worker is told to stop.
    pub grace: Duration,
    /// How registries are spoken to when images are pulled.
    pub registry: RegistryConfig,
}
