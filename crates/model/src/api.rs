//! The answers of the coordinator's HTTP API (`/api/v1/…`, JSON), as both sides see them.
//!
//! Times are RFC 3339 texts in UTC. Unknown fields are ignored on reading, so that an older client reads a newer farm;
//! fields that an older farm lacks take their default.

use serde::{Deserialize, Serialize};

/// One worker, `GET /api/v1/workers` answers a list of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkerInfo {
    /// The name it registered under.
    pub id: String,
    /// What it can execute.
    pub platforms: Vec<WorkerPlatform>,
    /// How many steps it runs at once.
    pub slots: u32,
    /// How many it runs now.
    pub running: u32,
    /// Whether its stream to the coordinator is open.
    pub connected: bool,
    /// When the coordinator last heard from it.
    pub last_seen: Option<String>,
}

/// A platform that a worker offers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkerPlatform {
    /// `os/architecture[/variant]`.
    pub platform: String,
    /// Through QEMU instead of natively.
    pub emulated: bool,
}

/// How a build ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BuildOutcome {
    /// Not over yet.
    #[default]
    Running,
    /// Everything asked for was delivered.
    Succeeded,
    /// It failed; the record's `error` says why.
    Failed,
    /// Its client left or asked to stop.
    Canceled,
    /// The coordinator ended while it ran.
    Interrupted,
}

impl BuildOutcome {
    /// The word that JSON and tables show.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
            Self::Interrupted => "interrupted",
        }
    }
}

/// One build of the history, `GET /api/v1/builds?limit=N` answers a list of them, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BuildSummary {
    /// The build's id, as its client chose it.
    pub id: String,
    /// When it was asked for.
    pub started: Option<String>,
    /// When it ended; none while it runs.
    pub finished: Option<String>,
    /// How it ended.
    pub outcome: BuildOutcome,
    /// The platforms it was asked for.
    pub platforms: Vec<String>,
    /// How many steps it has.
    pub steps_total: u32,
    /// How many of them came from the cache.
    pub steps_cached: u32,
    /// Why it failed.
    pub error: Option<String>,
}

/// One build with its steps, `GET /api/v1/builds/ID`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BuildDetail {
    /// What the list shows of it.
    #[serde(flatten)]
    pub summary: BuildSummary,
    /// Its steps, in the order in which they began.
    pub steps: Vec<StepInfo>,
}

/// One step of a build.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StepInfo {
    /// The step's name as clients show it.
    pub name: String,
    /// The platform it executed on, if it executed anything.
    pub platform: Option<String>,
    /// The worker that ran it; none where the coordinator did, or the cache answered.
    pub worker: Option<String>,
    /// Whether its result came from the cache.
    pub cached: bool,
    /// Whether it ran under QEMU.
    pub emulated: bool,
    /// When it began.
    pub started: Option<String>,
    /// When it ended.
    pub completed: Option<String>,
    /// Why it failed.
    pub error: Option<String>,
}
