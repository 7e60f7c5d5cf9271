//! What a container consists of.

use std::any::Any;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::network::StepNetwork;
use crate::snapshots::Mounts;

/// A container to run once.
#[derive(Debug, Clone)]
pub struct ContainerSpec {
    /// A name that no other container of this machine has: letters, digits, `-`.
    pub id: String,
    /// The root file system.
    pub root: Mounts,
    /// Refuse writes to the root file system. Mount points are still made in it, so it has an upper directory.
    pub read_only_root: bool,
    /// Further mounts, made in this order.
    pub mounts: Vec<ContainerMount>,
    /// What to start.
    pub process: Process,
    /// The host name.
    pub hostname: String,
    /// The contents of `/etc/hosts`.
    pub hosts: String,
    /// The contents of `/etc/resolv.conf`.
    pub resolv_conf: String,
    /// Its network.
    pub network: StepNetwork,
    /// Its rights.
    pub security: Security,
    /// What it may use.
    pub limits: Limits,
    /// The user namespace in which it runs, if not the worker's.
    pub user_namespace: Option<UserNamespace>,
}

/// The process to start in a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Process {
    /// The program and its arguments. A program without a slash is looked for in the `PATH` of `env`.
    pub args: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// The working directory, absolute. It is made, with the user as its owner, if it does not exist.
    pub cwd: String,
    /// Who runs it.
    pub user: User,
    /// Resource limits other than the worker's own.
    pub rlimits: Vec<Rlimit>,
}

/// Numbers of a user and its groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups.
    pub additional_gids: Vec<u32>,
}

/// A limit as for `setrlimit(2)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rlimit {
    /// Its name without `RLIMIT_`, in any case: `nofile`.
    pub name: String,
    /// Soft limit.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

/// A mount in a container.
#[derive(Debug, Clone)]
pub struct ContainerMount {
    /// Where, absolute in the container.
    pub destination: String,
    /// What.
    pub source: ContainerSource,
    /// Refuse writes.
    pub read_only: bool,
}

/// What is mounted in a container.
#[derive(Clone)]
pub enum ContainerSource {
    /// A path of a snapshot.
    Snapshot {
        /// The snapshot.
        mounts: Mounts,
        /// The path in it; empty or `/` for all of it. Symbolic links in it do not lead out of the snapshot.
        selector: String,
    },
    /// A directory of this machine.
    Directory(PathBuf),
    /// Memory, with a limit in bytes.
    Tmpfs(Option<u64>),
    /// A file that exists in memory only.
    Secret {
        /// Its contents.
        contents: Bytes,
        /// Its permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
}

impl fmt::Debug for ContainerSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Snapshot { mounts, selector } => write!(f, "Snapshot({mounts:?}, {selector:?})"),
            Self::Directory(path) => write!(f, "Directory({path:?})"),
            Self::Tmpfs(size) => write!(f, "Tmpfs({size:?})"),
            Self::Secret { .. } => f.write_str("Secret(…)"),
        }
    }
}

/// The rights of a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Security {
    /// Docker's default capabilities and system calls; parts of `/proc` and `/sys` hidden or read-only.
    #[default]
    Sandbox,
    /// Everything that the worker may (`RUN --security=insecure`).
    Insecure,
}

/// What a container may use; `None` is no limit of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Memory in bytes. Swap does not add to it.
    pub memory: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// CPU time in microseconds per 100 ms.
    pub cpu_quota: Option<u64>,
    /// CPUs, `0-1,3`.
    pub cpus: Option<String>,
    /// What the kernel adds to the badness of the container's processes when it looks for one to kill (-1000 to 1000).
    pub oom_score_adj: Option<i32>,
}

/// A user namespace that containers enter.
#[derive(Debug, Clone)]
pub struct UserNamespace {
    /// Its file in `/proc`, valid as long as `hold` lives.
    pub path: PathBuf,
    /// Its user mappings; groups are the same.
    pub mappings: Vec<IdMapping>,
    /// Keeps the namespace, and what belongs to it, alive.
    pub hold: Arc<dyn Any + Send + Sync>,
}

/// A range of ids in a user namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdMapping {
    /// First id inside.
    pub inside: u32,
    /// First id outside.
    pub outside: u32,
    /// How many.
    pub size: u32,
}
