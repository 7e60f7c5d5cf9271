//! What of an OCI runtime configuration this runner understands. Anything else is refused, so a container never gets less
//! than its configuration says.

use serde::Deserialize;

use super::seccomp::Profile;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Config {
    #[serde(rename = "ociVersion")]
    _version: String,
    pub(super) root: Root,
    pub(super) hostname: String,
    pub(super) process: Process,
    pub(super) mounts: Vec<Mount>,
    pub(super) linux: Linux,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Root {
    pub(super) path: String,
    #[serde(default)]
    pub(super) readonly: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Process {
    #[serde(default)]
    pub(super) terminal: bool,
    pub(super) user: User,
    pub(super) args: Vec<String>,
    #[serde(default)]
    pub(super) env: Vec<String>,
    pub(super) cwd: String,
    pub(super) capabilities: Capabilities,
    #[serde(default)]
    pub(super) no_new_privileges: bool,
    #[serde(default)]
    pub(super) rlimits: Vec<Rlimit>,
    pub(super) oom_score_adj: Option<i32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
    #[serde(default)]
    pub(super) additional_gids: Vec<u32>,
}

/// Names of capabilities. None are inheritable or ambient.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Capabilities {
    #[serde(default)]
    pub(super) bounding: Vec<String>,
    #[serde(default)]
    pub(super) effective: Vec<String>,
    #[serde(default)]
    pub(super) permitted: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rlimit {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) soft: u64,
    pub(super) hard: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mount {
    pub(super) destination: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) source: String,
    #[serde(default)]
    pub(super) options: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Linux {
    pub(super) cgroups_path: String,
    pub(super) namespaces: Vec<Namespace>,
    #[serde(default)]
    pub(super) resources: Resources,
    #[serde(default)]
    pub(super) masked_paths: Vec<String>,
    #[serde(default)]
    pub(super) readonly_paths: Vec<String>,
    pub(super) seccomp: Option<Profile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Namespace {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) path: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Resources {
    #[serde(default)]
    devices: Vec<DeviceRule>,
    pub(super) memory: Option<Memory>,
    pub(super) pids: Option<Pids>,
    pub(super) cpu: Option<Cpu>,
}

impl Resources {
    /// Whether every device may be used; else only those that every container may.
    pub(super) fn all_devices(&self) -> bool {
        self.devices.last().is_some_and(|rule| rule.allow)
    }
}

/// A rule for all devices: no others are known.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviceRule {
    allow: bool,
    #[serde(rename = "access")]
    _access: All,
}

#[derive(Debug, Deserialize)]
enum All {
    #[serde(rename = "rwm")]
    All,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Memory {
    pub(super) limit: Option<i64>,
    /// Together with memory.
    pub(super) swap: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pids {
    pub(super) limit: i64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cpu {
    pub(super) quota: Option<i64>,
    pub(super) period: Option<u64>,
    pub(super) cpus: Option<String>,
}
