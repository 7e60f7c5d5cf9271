//! What a container's first process does, worked out beforehand: names looked up, options sorted, the filter compiled. It
//! travels to the step helper in a file that exists in memory only.

use serde::{Deserialize, Serialize};

use super::config::{Capabilities, Config, Mount, Rlimit};
use super::groups::Groups;
use super::seccomp::{Filters, Instruction};
use crate::runner::config::CAPABILITIES;

/// Everything but open files.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) id: String,
    /// Where its root is mounted.
    pub(super) root: String,
    pub(super) read_only_root: bool,
    pub(super) hostname: String,
    pub(super) network: Network,
    /// In this order.
    pub(super) mounts: Vec<Planned>,
    /// Paths to hide.
    pub(super) masked: Vec<String>,
    /// Paths to make read-only.
    pub(super) read_only: Vec<String>,
    pub(super) process: Process,
    /// The system call filter; empty for none.
    pub(super) filter: Vec<Instruction>,
    /// The container's control groups, removed by the helper where the worker cannot any more.
    pub(super) groups: Vec<String>,
    /// How many files by which groups of v1 are entered travel with it.
    pub(super) entrances: usize,
    /// Whether the group of the unified hierarchy travels with it.
    pub(super) unified: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Network {
    /// The helper's.
    Host,
    /// A new one, with its loopback switched on.
    New,
    /// One that travels with the plan.
    Joined,
}

/// A mount to make.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Planned {
    /// Where, absolute in the container.
    pub(super) at: String,
    pub(super) what: What,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum What {
    /// A file system of the kernel's.
    FileSystem(FileSystem),
    /// A path of the stage, with what is mounted below it.
    Bind(String),
    /// The control groups of the container: memory with a directory for each (its name, what it shows), and links.
    Groups {
        memory: FileSystem,
        views: Vec<(String, String)>,
        links: Vec<(String, String)>,
        attributes: u64,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FileSystem {
    pub(super) kind: String,
    pub(super) source: String,
    /// `MOUNT_ATTR_…`.
    pub(super) attributes: u64,
    pub(super) options: Vec<(String, Option<String>)>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Process {
    pub(super) args: Vec<String>,
    pub(super) env: Vec<String>,
    pub(super) cwd: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
    /// Sets of capabilities as bits.
    pub(super) bounding: u64,
    pub(super) effective: u64,
    pub(super) permitted: u64,
    pub(super) no_new_privileges: bool,
    /// Resource, soft, hard.
    pub(super) limits: Vec<(u32, u64, u64)>,
    pub(super) oom_score_adj: Option<i32>,
}

/// Why a configuration cannot be carried out here.
#[derive(Debug, thiserror::Error)]
#[error("the native runner cannot do it: {0}")]
pub(super) struct Unsupported(String);

impl Plan {
    /// The plan for a configuration, whose control groups are there already.
    pub(super) fn new(
        id: &str,
        config: Config,
        groups: &Groups<'_>,
        filters: &Filters,
    ) -> Result<Self, Unsupported> {
        let network = network(&config)?;
        let filter = config.linux.seccomp.map(|profile| filters.of(profile));
        let filter = filter
            .transpose()
            .map_err(|error| Unsupported(error.to_string()))?;
        let mounts: Vec<Planned> = config
            .mounts
            .iter()
            .map(|mount| planned(mount, groups))
            .collect::<Result<_, _>>()?;
        if !mounts
            .iter()
            .any(|mount| mount.at == "/dev" && matches!(mount.what, What::FileSystem(_)))
        {
            return Err(Unsupported("no file system at /dev".to_owned()));
        }
        Ok(Self {
            id: id.to_owned(),
            root: config.root.path,
            read_only_root: config.root.readonly,
            hostname: config.hostname,
            network,
            mounts,
            masked: config.linux.masked_paths,
            read_only: config.linux.readonly_paths,
            process: process(config.process)?,
            filter: filter.unwrap_or_default(),
            groups: groups.places(),
            entrances: 0,
            unified: false,
        })
    }
}

fn network(config: &Config) -> Result<Network, Unsupported> {
    let mut network = Network::Host;
    let mut missing = vec!["pid", "ipc", "uts", "mount"];
    for namespace in &config.linux.namespaces {
        match (namespace.kind.as_str(), &namespace.path) {
            ("network", None) => network = Network::New,
            ("network", Some(_)) => network = Network::Joined,
            (kind, None) if missing.contains(&kind) => missing.retain(|name| *name != kind),
            (kind, _) => return Err(Unsupported(format!("a {kind} namespace"))),
        }
    }
    match missing.first() {
        None => Ok(network),
        Some(kind) => Err(Unsupported(format!("no {kind} namespace of its own"))),
    }
}

fn planned(mount: &Mount, groups: &Groups<'_>) -> Result<Planned, Unsupported> {
    let what = match mount.kind.as_str() {
        "bind" if mount.options == ["rbind"] => What::Bind(mount.source.clone()),
        "cgroup" => {
            let shared = file_system(mount)?;
            let views = groups.views();
            let several = views.iter().filter(|(name, _)| name.contains(','));
            let links = several
                .flat_map(|(name, _)| name.split(',').map(|part| (part.to_owned(), name.clone())));
            What::Groups {
                links: links.collect(),
                views,
                attributes: shared.attributes,
                memory: FileSystem {
                    kind: "tmpfs".to_owned(),
                    source: "tmpfs".to_owned(),
                    attributes: shared.attributes & !super::sys::READ_ONLY,
                    options: vec![("mode".to_owned(), Some("755".to_owned()))],
                },
            }
        }
        "proc" | "sysfs" | "tmpfs" | "devpts" | "mqueue" => What::FileSystem(file_system(mount)?),
        kind => {
            let options = mount.options.join(",");
            return Err(Unsupported(format!(
                "a mount of type {kind} with {options:?}"
            )));
        }
    };
    Ok(Planned {
        at: mount.destination.clone(),
        what,
    })
}

/// Sorts the options of a mount into attributes and what the file system itself takes.
fn file_system(mount: &Mount) -> Result<FileSystem, Unsupported> {
    let mut system = FileSystem {
        kind: mount.kind.clone(),
        source: mount.source.clone(),
        attributes: 0,
        options: Vec::new(),
    };
    for option in &mount.options {
        match (option.as_str(), option.split_once('=')) {
            ("ro", _) => system.attributes |= super::sys::READ_ONLY,
            ("rw", _) => system.attributes &= !super::sys::READ_ONLY,
            ("nosuid", _) => system.attributes |= libc::MOUNT_ATTR_NOSUID,
            ("nodev", _) => system.attributes |= libc::MOUNT_ATTR_NODEV,
            ("noexec", _) => system.attributes |= libc::MOUNT_ATTR_NOEXEC,
            ("strictatime", _) => system.attributes |= libc::MOUNT_ATTR_STRICTATIME,
            // Every instance of it is a new one.
            ("newinstance", _) => {}
            (_, Some((name, value))) => system
                .options
                .push((name.to_owned(), Some(value.to_owned()))),
            (other, None) => return Err(Unsupported(format!("the mount option {other}"))),
        }
    }
    // sysfs and others show what was asked for in the mount's own flags too.
    if system.attributes & super::sys::READ_ONLY != 0 {
        system.options.push(("ro".to_owned(), None));
    }
    Ok(system)
}

fn process(process: super::config::Process) -> Result<Process, Unsupported> {
    if process.terminal {
        return Err(Unsupported("a terminal".to_owned()));
    }
    let Capabilities {
        bounding,
        effective,
        permitted,
    } = &process.capabilities;
    Ok(Process {
        bounding: bits(bounding)?,
        effective: bits(effective)?,
        permitted: bits(permitted)?,
        limits: process
            .rlimits
            .iter()
            .map(limit)
            .collect::<Result<_, _>>()?,
        args: process.args,
        env: process.env,
        cwd: process.cwd,
        uid: process.user.uid,
        gid: process.user.gid,
        groups: process.user.additional_gids,
        no_new_privileges: process.no_new_privileges,
        oom_score_adj: process.oom_score_adj,
    })
}

fn bits(names: &[String]) -> Result<u64, Unsupported> {
    let bit = |name: &String| {
        let known = CAPABILITIES
            .iter()
            .position(|known| name.strip_prefix("CAP_") == Some(known));
        let bit = known.ok_or_else(|| Unsupported(format!("the capability {name}")))?;
        Ok(1_u64 << bit)
    };
    names
        .iter()
        .try_fold(0, |all, name| bit(name).map(|bit| all | bit))
}

fn limit(limit: &Rlimit) -> Result<(u32, u64, u64), Unsupported> {
    let resource = match limit.kind.as_str() {
        "RLIMIT_AS" => libc::RLIMIT_AS,
        "RLIMIT_CORE" => libc::RLIMIT_CORE,
        "RLIMIT_CPU" => libc::RLIMIT_CPU,
        "RLIMIT_DATA" => libc::RLIMIT_DATA,
        "RLIMIT_FSIZE" => libc::RLIMIT_FSIZE,
        "RLIMIT_LOCKS" => libc::RLIMIT_LOCKS,
        "RLIMIT_MEMLOCK" => libc::RLIMIT_MEMLOCK,
        "RLIMIT_MSGQUEUE" => libc::RLIMIT_MSGQUEUE,
        "RLIMIT_NICE" => libc::RLIMIT_NICE,
        "RLIMIT_NOFILE" => libc::RLIMIT_NOFILE,
        "RLIMIT_NPROC" => libc::RLIMIT_NPROC,
        "RLIMIT_RSS" => libc::RLIMIT_RSS,
        "RLIMIT_RTPRIO" => libc::RLIMIT_RTPRIO,
        "RLIMIT_RTTIME" => libc::RLIMIT_RTTIME,
        "RLIMIT_SIGPENDING" => libc::RLIMIT_SIGPENDING,
        "RLIMIT_STACK" => libc::RLIMIT_STACK,
        other => return Err(Unsupported(format!("the limit {other}"))),
    };
    Ok((resource, limit.soft, limit.hard))
}
