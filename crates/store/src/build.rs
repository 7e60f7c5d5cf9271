//! The history of builds: what was asked, what ran where, what it printed.

use std::collections::BTreeMap;

use async_trait::async_trait;
pub use buildyard_model::BuildId;
use buildyard_model::{Digest, Platform, Scope, StepDigest, WorkerId};

use crate::{StoreError, UnixMillis};

/// At most this many bytes of a step's output are kept in the database.
pub const MAX_LOG_TEXT: usize = 256 << 10;

/// At most this many bytes of a name or an error text are kept.
pub const TEXTS_CAP: usize = 64 << 10;

/// How a build stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BuildOutcome {
    /// It is under way.
    Running,
    /// Everything asked for was built and exported.
    Succeeded,
    /// A step, an export or the request itself failed.
    Failed,
    /// Its client left or cancelled it.
    Cancelled,
    /// The coordinator ended while it ran.
    Interrupted,
}

/// One build of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildRecord {
    /// The client's id for it.
    pub id: BuildId,
    /// Whose cache it used.
    pub scope: Scope,
    /// What people see: the Dockerfile's name, the context's, the image's.
    pub name: String,
    /// `dockerfile.v0`, or empty for raw LLB.
    pub frontend: String,
    /// The target stage; empty for the last.
    pub target: String,
    /// The target platforms.
    pub platforms: Vec<Platform>,
    /// What it exports, one text per export (`image registry/name:tag`, `oci`).
    pub exports: Vec<String>,
    /// When it began.
    pub started: UnixMillis,
    /// How it stands.
    pub outcome: BuildOutcome,
    /// When it ended.
    pub completed: Option<UnixMillis>,
    /// Why it failed.
    pub error: Option<String>,
    /// What the exporters answered (`containerimage.digest` …).
    pub response: BTreeMap<String, String>,
    /// How many steps it had.
    pub steps: u32,
    /// How many of them were cached.
    pub steps_cached: u32,
    /// How many of them ran emulated.
    pub steps_emulated: u32,
}

/// How a build ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Anything but [`BuildOutcome::Running`].
    pub outcome: BuildOutcome,
    /// When.
    pub completed: UnixMillis,
    /// Why it failed.
    pub error: Option<String>,
    /// What the exporters answered.
    pub response: BTreeMap<String, String>,
    /// Its steps, in the order in which they are listed.
    pub steps: Vec<StepRecord>,
}

/// One step of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepRecord {
    /// The step of the build's graph.
    pub step: StepDigest,
    /// Its name as the client saw it.
    pub name: String,
    /// What it executed on.
    pub platform: Option<Platform>,
    /// Who ran it; `None` when nobody had to.
    pub worker: Option<WorkerId>,
    /// Its result was there.
    pub cached: bool,
    /// It ran under QEMU.
    pub emulated: bool,
    /// When it began.
    pub started: Option<UnixMillis>,
    /// When it ended.
    pub completed: Option<UnixMillis>,
    /// Why it failed.
    pub error: Option<String>,
    /// What it printed. [`History::steps`] leaves it out; [`History::log`] has it.
    pub log: Option<StepLog>,
}

/// What a step printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepLog {
    /// It lies in the blob store.
    Blob(Digest),
    /// The bytes; more than [`MAX_LOG_TEXT`] are cut as [`cap_log`] says.
    Text(Vec<u8>),
}

/// Where a page of the list goes on: the last build of the page before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageStart {
    /// Its start.
    pub started: UnixMillis,
    /// Its id.
    pub id: BuildId,
}

/// What the coordinator writes of a build.
#[async_trait]
pub trait Builds: Send + Sync {
    /// A build begins. [`StoreError::BuildExists`] if its id was used before.
    async fn start_build(&self, build: &BuildRecord) -> Result<(), StoreError>;

    /// A build ends, and its steps are recorded and counted; results that were only for it (`--no-cache`) are dropped,
    /// their shared copies stay. Returns `false` if it had ended before, or is gone: the first end counts, with its steps.
    async fn finish_build(&self, build: &BuildId, finished: &Finished) -> Result<bool, StoreError>;

    /// At start-up: whatever still counts as running was interrupted by the end of the last process. Returns how many.
    async fn abandon_running(&self, now: UnixMillis) -> Result<usize, StoreError>;

    /// Removes finished builds that began before `before`, the oldest first, at most `limit`. Returns the log blobs
    /// that nothing else refers to.
    async fn remove_builds(
        &self,
        before: UnixMillis,
        limit: u32,
    ) -> Result<Vec<Digest>, StoreError>;
}

/// What people read of builds.
#[async_trait]
pub trait History: Send + Sync {
    /// Builds, the last begun first, at most `limit`, from `after` on.
    async fn list_builds(
        &self,
        limit: u32,
        after: Option<&PageStart>,
    ) -> Result<Vec<BuildRecord>, StoreError>;

    /// One build.
    async fn build(&self, id: &BuildId) -> Result<Option<BuildRecord>, StoreError>;

    /// A build's steps in their order, without their logs.
    async fn steps(&self, build: &BuildId) -> Result<Vec<StepRecord>, StoreError>;

    /// What a step printed.
    async fn log(&self, build: &BuildId, step: StepDigest) -> Result<Option<StepLog>, StoreError>;
}

/// Cuts a log to [`MAX_LOG_TEXT`]: its first quarter and its last three, which is where errors are, with a line
/// between that says how much is missing.
pub fn cap_log(log: &[u8]) -> Vec<u8> {
    if log.len() <= MAX_LOG_TEXT {
        return log.to_vec();
    }
    let note_room = 64;
    let head = MAX_LOG_TEXT / 4;
    let tail = MAX_LOG_TEXT - head - note_room;
    let missing = log.len() - head - tail;
    let mut kept = log[..head].to_vec();
    kept.extend_from_slice(format!("\n[{missing} bytes left out]\n").as_bytes());
    kept.extend_from_slice(&log[log.len() - tail..]);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_logs_stay_and_long_ones_keep_both_ends() {
        assert_eq!(cap_log(b"hello"), b"hello");
        let long: Vec<u8> = (0..MAX_LOG_TEXT * 2)
            .map(|at| b'a' + u8::try_from(at % 26).expect("below 26"))
            .collect();
        let kept = cap_log(&long);
        assert!(kept.len() <= MAX_LOG_TEXT, "{}", kept.len());
        assert_eq!(kept[..100], long[..100]);
        assert_eq!(kept[kept.len() - 100..], long[long.len() - 100..]);
        assert!(String::from_utf8_lossy(&kept).contains("bytes left out]"));
    }
}
