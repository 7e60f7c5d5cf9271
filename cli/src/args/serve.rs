//! The flags of the servers: `up`, `coordinator`, `worker`. What they mean is checked in [`crate::serve`].

use std::path::PathBuf;

use buildyard_cas::SizeLimit;
use buildyard_worker::runner::RunnerChoice;
use buildyard_worker::snapshots::SnapshotterChoice;
use clap::{Args, Subcommand};

/// The commands that serve.
#[derive(Debug, Subcommand)]
pub enum ServeCommand {
    /// Run a whole farm in one process
    Up(UpArgs),
    /// Run the endpoint that clients and workers connect to
    Coordinator(CoordinatorArgs),
    /// Run steps for a coordinator
    Worker(WorkerArgs),
}

/// Where a server listens, and whom it lets in.
#[derive(Debug, Clone, Default, Args)]
pub struct EndpointArgs {
    /// Where to listen: HOST:PORT, tcp://HOST:PORT or unix://PATH; may be given several times [default: 127.0.0.1:8372]
    #[arg(long, value_name = "ADDR")]
    pub listen: Vec<String>,
    /// The endpoint's certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The key (PEM) of --tls-cert
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// The certificate authority (PEM) that clients and workers must have their certificates from
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub client_ca: Option<PathBuf>,
    /// Let anybody who reaches the address use the farm
    #[arg(long)]
    pub allow_unauthenticated: bool,
}

/// What a coordinator keeps, and where.
#[derive(Debug, Clone, Args)]
pub struct StoreArgs {
    /// The directory that everything is kept in
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// The farm's BUILDPLATFORM, remembered from then on [default: this machine's platform]
    #[arg(long, value_name = "PLATFORM")]
    pub build_platform: Option<String>,
    /// Most that layers and blobs may take, e.g. 50G, or a share of the disk, e.g. 60%; what is unused longest goes first,
    /// never what a running build needs
    #[arg(long, value_name = "SIZE", default_value = "50%")]
    pub store_limit: SizeLimit,
}

/// What a worker offers.
#[derive(Debug, Clone, Default, Args)]
pub struct OfferArgs {
    /// Offer only these platforms, e.g. linux/amd64,linux/arm64 [default: all that this machine can run]
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',')]
    pub platforms: Vec<String>,
    /// How many steps to run at once [default: one for each processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub slots: Option<u32>,
    /// How layers are made ready for steps: erofs (images over the layers' bytes; Linux 6.12 or later), directories (unpacked),
    /// or auto: erofs where it works, else directories [default: auto]
    #[arg(long, value_name = "NAME", default_value_t, hide_default_value = true)]
    pub snapshotter: SnapshotterChoice,
    /// Let steps use this machine's network where their client allows network.host
    #[arg(long)]
    pub allow_host_network: bool,
    /// Register QEMU with this machine's kernel where no other way of emulating works
    #[arg(long)]
    pub allow_host_binfmt: bool,
    /// Most memory that one step may use, e.g. 4G; a command that needs more is killed and the build says why [default: no
    /// limit]
    #[arg(long, value_name = "SIZE", value_parser = step_memory)]
    pub step_memory: Option<u64>,
    /// What runs steps: "native" (the worker itself), an OCI runtime program like runc, or "auto": native where it works,
    /// else runc. Steps in a user namespace are always run by a program
    #[arg(long, value_name = "RUNNER", default_value = "auto")]
    pub runner: RunnerChoice,
}

/// The runtime itself needs some memory of its container's until the command has started.
const LEAST_STEP_MEMORY: u64 = 32 << 20;

fn step_memory(text: &str) -> Result<u64, String> {
    match text.parse::<SizeLimit>() {
        Ok(SizeLimit::Bytes(bytes)) if bytes >= LEAST_STEP_MEMORY => Ok(bytes),
        Ok(SizeLimit::Bytes(_)) => Err("no step starts with less than 32M".to_owned()),
        Ok(SizeLimit::Percent(_)) => Err("write it in bytes, like 4G or 512MiB".to_owned()),
        Err(_) => Err("write it like 4G or 512MiB".to_owned()),
    }
}

/// `buildyard up`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  buildyard up --data /var/lib/buildyard")]
pub struct UpArgs {
    /// Where it listens.
    #[command(flatten)]
    pub endpoint: EndpointArgs,
    /// What it keeps.
    #[command(flatten)]
    pub store: StoreArgs,
    /// What it offers.
    #[command(flatten)]
    pub offer: OfferArgs,
    /// Most that layers unpacked for steps may take, e.g. 20G, or a share of the disk, e.g. 25%
    #[arg(long, value_name = "SIZE", default_value = "25%")]
    pub cache_limit: SizeLimit,
    /// How long running steps may go on after a request to stop, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub grace: u64,
}

/// `buildyard coordinator`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:
  buildyard coordinator --data /var/lib/buildyard --listen 0.0.0.0:8372 --tls-cert farm.pem --tls-key farm.key --client-ca ca.pem")]
pub struct CoordinatorArgs {
    /// Where it listens.
    #[command(flatten)]
    pub endpoint: EndpointArgs,
    /// What it keeps.
    #[command(flatten)]
    pub store: StoreArgs,
    /// The database: sqlite:PATH [default: sqlite, in the data directory]
    #[arg(long, value_name = "URL")]
    pub database: Option<String>,
    /// Where blobs are kept: file:PATH [default: in the data directory]
    #[arg(long, value_name = "URL")]
    pub blobs: Option<String>,
    /// How long running steps may go on after a request to stop, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub grace: u64,
}

/// `buildyard worker`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:
  buildyard worker --join https://farm.example:8372 --data /var/lib/buildyard-worker --ca ca.pem --cert w1.pem --key w1.key")]
pub struct WorkerArgs {
    /// The coordinator's URL
    #[arg(long, value_name = "URL")]
    pub join: String,
    /// The directory that layers and snapshots are kept in
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Most that layers may take in it, e.g. 50G, or a share of the disk, e.g. 60%; what is unused longest goes first
    #[arg(long, value_name = "SIZE", default_value = "60%")]
    pub cache_limit: SizeLimit,
    /// The worker's name in the farm [default: this machine's name]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// What it offers.
    #[command(flatten)]
    pub offer: OfferArgs,
    /// The certificate authority (PEM) that the coordinator's certificate must come from
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// The certificate (PEM) to show to the coordinator
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// The key (PEM) of --cert
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// How long running steps may go on after a request to stop, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub grace: u64,
}
