//! The OCI runtime configuration of a container: what BuildKit and containerd give to a build step
//! (containerd `pkg/oci` `populateDefaultUnixSpec`, BuildKit `executor/oci`), checked by the types of `oci-spec`.

use std::path::Path;

use oci_spec::runtime::Spec;
use serde_json::{Value, json};

use super::cgroup;
use super::seccomp;
use super::spec::{ContainerSpec, Limits, Rlimit, Security, UserNamespace};
use crate::network::Attachment;

/// The capabilities of a sandboxed step.
pub const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

pub(super) const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
    "/proc/scsi",
];

pub(super) const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// A mount whose source the runner has prepared, read-only already where it is to be.
#[derive(Debug)]
pub(super) struct ReadyMount {
    pub(super) source: String,
    pub(super) destination: String,
}

/// The configuration of `spec`, its root file system at `root`, its mounts made.
pub(super) fn config(
    spec: &ContainerSpec,
    root: &Path,
    mounts: &[ReadyMount],
    network: &Attachment,
) -> Result<Spec, serde_json::Error> {
    let insecure = spec.security == Security::Insecure;
    let held = if insecure {
        held_capabilities()
    } else {
        Vec::new()
    };
    let capabilities: Vec<&str> = if insecure {
        held.iter().map(String::as_str).collect()
    } else {
        DEFAULT_CAPABILITIES.to_vec()
    };
    let mut linux = json!({
        "cgroupsPath": format!("/buildyard/{}", spec.id),
        "namespaces": namespaces(spec, network),
        "resources": resources(&spec.limits, insecure),
    });
    if let Some(namespace) = &spec.user_namespace {
        let mappings = id_mappings(namespace);
        linux["uidMappings"] = mappings.clone();
        linux["gidMappings"] = mappings;
    }
    if !insecure {
        linux["maskedPaths"] = json!(MASKED);
        linux["readonlyPaths"] = json!(READ_ONLY);
        if let Some(profile) = seccomp::profile(std::env::consts::ARCH, &capabilities) {
            linux["seccomp"] = profile;
        }
    }
    serde_json::from_value(json!({
        "ociVersion": "1.0.2",
        "root": { "path": root, "readonly": spec.read_only_root },
        "hostname": spec.hostname,
        "process": process(spec, &capabilities),
        "mounts": all_mounts(spec, mounts, network),
        "linux": linux,
    }))
}

fn process(spec: &ContainerSpec, capabilities: &[&str]) -> Value {
    let mut process = json!({
        "terminal": false,
        "user": {
            "uid": spec.process.user.uid,
            "gid": spec.process.user.gid,
            "additionalGids": spec.process.user.additional_gids,
        },
        "args": spec.process.args,
        "env": spec.process.env,
        "cwd": spec.process.cwd,
        "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
        "noNewPrivileges": false,
        "rlimits": spec.process.rlimits.iter().map(rlimit).collect::<Vec<_>>(),
    });
    if let Some(adjustment) = spec.limits.oom_score_adj {
        process["oomScoreAdj"] = adjustment.into();
    }
    process
}

fn rlimit(limit: &Rlimit) -> Value {
    json!({ "type": format!("RLIMIT_{}", limit.name.to_uppercase()), "soft": limit.soft, "hard": limit.hard })
}

/// The capabilities that the worker has itself, by name.
fn held_capabilities() -> Vec<String> {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    let mask = mask
        .and_then(|text| u64::from_str_radix(text.trim(), 16).ok())
        .unwrap_or(0);
    let held = CAPABILITIES
        .iter()
        .enumerate()
        .filter(|(bit, _)| mask & (1 << bit) != 0);
    held.map(|(_, name)| format!("CAP_{name}")).collect()
}

/// In the order of their numbers (`linux/capability.h`).
pub(super) const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

fn namespaces(spec: &ContainerSpec, network: &Attachment) -> Vec<Value> {
    let mut namespaces: Vec<Value> = ["pid", "ipc", "uts", "mount"]
        .iter()
        .map(|kind| json!({ "type": kind }))
        .collect();
    match network {
        Attachment::Host => {}
        Attachment::Isolated => namespaces.push(json!({ "type": "network" })),
        Attachment::Joined(link) => {
            namespaces.push(json!({ "type": "network", "path": link.path() }))
        }
    }
    // With v1 hierarchies a cgroup namespace cannot be shown (EINVAL): only where v2 is all there is.
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        namespaces.push(json!({ "type": "cgroup" }));
    }
    if let Some(namespace) = &spec.user_namespace {
        namespaces.push(json!({ "type": "user", "path": namespace.path }));
    }
    namespaces
}

fn id_mappings(namespace: &UserNamespace) -> Value {
    let mapping = |m: &super::IdMapping| json!({ "containerID": m.inside, "hostID": m.outside, "size": m.size });
    namespace.mappings.iter().map(mapping).collect()
}

fn resources(limits: &Limits, insecure: bool) -> Value {
    let mut resources = json!({ "devices": [{ "allow": insecure, "access": "rwm" }] });
    if let Some(bytes) = limits.memory {
        resources["memory"] = json!({ "limit": bytes });
        if cgroup::counts_swap() {
            // Memory and swap together are as much: no swap on top.
            resources["memory"]["swap"] = bytes.into();
        }
    }
    if let Some(most) = limits.pids {
        resources["pids"] = json!({ "limit": most });
    }
    let mut cpu = serde_json::Map::new();
    if let Some(quota) = limits.cpu_quota {
        cpu.insert("quota".to_owned(), quota.into());
        cpu.insert("period".to_owned(), 100_000.into());
    }
    if let Some(cpus) = &limits.cpus {
        cpu.insert("cpus".to_owned(), cpus.as_str().into());
    }
    if !cpu.is_empty() {
        resources["cpu"] = cpu.into();
    }
    resources
}

fn all_mounts(spec: &ContainerSpec, mounts: &[ReadyMount], network: &Attachment) -> Vec<Value> {
    let insecure = spec.security == Security::Insecure;
    let access = if insecure { "rw" } else { "ro" };
    let hidden = ["nosuid", "noexec", "nodev"];
    let mut all = vec![
        json!({ "destination": "/proc", "type": "proc", "source": "proc", "options": hidden }),
        json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] }),
        json!({ "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] }),
        json!({ "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
                "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] }),
        json!({ "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": hidden }),
        sysfs(spec, network, access),
        json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                "options": [hidden[0], hidden[1], hidden[2], access] }),
    ];
    all.extend(mounts.iter().map(|mount| {
        json!({ "destination": mount.destination, "type": "bind", "source": mount.source, "options": ["rbind"] })
    }));
    all
}

/// A new sysfs shows the devices of the network namespace it is mounted from, and only that namespace's owner may
/// mount one: in a user namespace with the host's network, the host's is bound.
fn sysfs(spec: &ContainerSpec, network: &Attachment, access: &str) -> Value {
    let foreign = spec.user_namespace.is_some() && matches!(network, Attachment::Host);
    let (kind, source, first) = if foreign {
        ("bind", "/sys", "rbind")
    } else {
        ("sysfs", "sysfs", access)
    };
    json!({ "destination": "/sys", "type": kind, "source": source,
            "options": [first, "nosuid", "noexec", "nodev", access] })
}
