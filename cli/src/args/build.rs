//! `buildyard build`: the flags of `docker buildx build`, by their names.

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};

use super::FarmArgs;

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ProgressMode {
    /// tty on a terminal, else plain
    #[default]
    Auto,
    /// One line for each event
    Plain,
    /// A view that redraws itself
    Tty,
    /// Nothing but the result's digest
    Quiet,
    /// BuildKit's status messages as lines of JSON
    Rawjson,
    /// Nothing
    None,
}

/// `buildyard build`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "Examples:
  buildyard build -t registry.example/app:1 --platform linux/amd64,linux/arm64 --push .
  buildyard build --load -t app .
  buildyard build -o type=local,dest=out --target binaries .
  buildyard build --builder https://farm.example:8372 --ca ca.pem --cert me.pem --key me.key -t r.example/app --push .")]
pub struct BuildArgs {
    /// The directory whose files the build can copy, or a URL that the farm fetches
    #[arg(value_name = "CONTEXT")]
    pub context: String,
    /// The farm.
    #[command(flatten)]
    pub farm: FarmArgs,

    /// The Dockerfile [default: CONTEXT/Dockerfile]; - reads it from standard input
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<String>,
    /// Platforms to build for, e.g. linux/amd64,linux/arm64
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',')]
    pub platform: Vec<String>,
    /// The stage to build
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,
    /// Set a build argument; KEY alone takes the value from the environment
    #[arg(long, value_name = "KEY[=VALUE]")]
    pub build_arg: Vec<String>,
    /// Set a label of the image
    #[arg(long, value_name = "KEY=VALUE")]
    pub label: Vec<String>,
    /// Set an annotation, e.g. index:KEY=VALUE
    #[arg(long, value_name = "[TYPE[,TYPE]:]KEY=VALUE")]
    pub annotation: Vec<String>,
    /// Add a line to /etc/hosts of every step
    #[arg(long, value_name = "HOST:IP")]
    pub add_host: Vec<String>,
    /// The network of RUN steps: default, none, or host (which the farm's workers must allow)
    #[arg(long, value_name = "MODE")]
    pub network: Option<String>,
    /// Size of /dev/shm of every step, e.g. 64m
    #[arg(long, value_name = "SIZE")]
    pub shm_size: Option<String>,
    /// A limit for every step, e.g. nofile=1024:2048
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub ulimit: Vec<String>,
    /// The control group that steps run under
    #[arg(long, value_name = "PATH")]
    pub cgroup_parent: Option<String>,
    /// Allow something that needs permission: network.host, security.insecure
    #[arg(long, value_name = "ENTITLEMENT")]
    pub allow: Vec<String>,
    /// Give RUN --mount=type=secret a secret: id=NAME,src=FILE or id=NAME,env=VARIABLE
    #[arg(long, value_name = "id=NAME[,src=FILE|,env=VAR]")]
    pub secret: Vec<String>,

    /// Name of the image; may be given several times
    #[arg(short, long, value_name = "REF")]
    pub tag: Vec<String>,
    /// Push the image to the registry of its name
    #[arg(long)]
    pub push: bool,
    /// Load the image into the Docker Engine of this machine
    #[arg(long)]
    pub load: bool,
    /// Where the result goes, e.g. type=local,dest=out, type=oci,dest=image.tar, type=image,push=true
    #[arg(short, long, value_name = "type=TYPE[,KEY=VALUE]")]
    pub output: Vec<String>,
    /// Write the image's digests and names to this file as JSON
    #[arg(long, value_name = "FILE")]
    pub metadata_file: Option<PathBuf>,
    /// Write the image's id to this file
    #[arg(long, value_name = "FILE")]
    pub iidfile: Option<PathBuf>,

    /// Run every step, whatever the cache has
    #[arg(long)]
    pub no_cache: bool,
    /// Run every step of these stages
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    pub no_cache_filter: Vec<String>,
    /// Ask the registry whether base images have changed
    #[arg(long)]
    pub pull: bool,
    /// Accepted for buildx's sake; the farm's own cache needs none
    #[arg(long, value_name = "SOURCE")]
    pub cache_from: Vec<String>,
    /// Accepted for buildx's sake; the farm's own cache needs none
    #[arg(long, value_name = "DESTINATION")]
    pub cache_to: Vec<String>,

    /// How to show progress
    #[arg(
        long,
        value_enum,
        default_value_t,
        env = "BUILDKIT_PROGRESS",
        hide_env_values = true
    )]
    pub progress: ProgressMode,
    /// Print nothing but the image's id
    #[arg(short, long)]
    pub quiet: bool,

    /// Only false is accepted: the farm makes no attestations yet
    #[arg(long, value_name = "false", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub provenance: Option<String>,
    /// Only false is accepted: the farm makes no attestations yet
    #[arg(long, value_name = "false", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub sbom: Option<String>,
    /// Only type=…,disabled=true is accepted: the farm makes no attestations yet
    #[arg(long, value_name = "type=TYPE,disabled=true")]
    pub attest: Vec<String>,

    // Flags of buildx that are refused by their names, which says more than "unexpected argument".
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "default", action = ArgAction::Append)]
    pub(crate) ssh: Vec<String>,
    #[arg(long, hide = true)]
    pub(crate) build_context: Vec<String>,
    #[arg(long, hide = true)]
    pub(crate) call: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) check: bool,
    #[arg(long, hide = true)]
    pub(crate) resource: Vec<String>,
    #[arg(long, hide = true)]
    pub(crate) policy: Vec<String>,
}
