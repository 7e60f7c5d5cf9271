//! What steps have yielded.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use buildyard_model::{BuildId, Chain, Digest, LayerId, Platform, Scope, StepKey, WorkerId};

use crate::{StoreError, UnixMillis};

/// The recorded outcome of a step that succeeded. Failures are never stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepResult {
    /// One chain per output index; `None` where the step has no such output (a mount without one).
    pub outputs: Vec<Option<Chain>>,
    /// When it was made: what image configs and histories show, whenever they are written.
    pub created: UnixMillis,
    /// How long the step ran; kept in whole milliseconds.
    pub duration: Duration,
    /// Who ran it.
    pub worker: WorkerId,
    /// What it executed on; `None` for a step that executes nothing.
    pub platform: Option<Platform>,
    /// It ran under QEMU.
    pub emulated: bool,
    /// The build that it ran for.
    pub build: BuildId,
    /// The step's name there.
    pub name: String,
    /// What it printed, as a blob.
    pub log: Option<Digest>,
}

/// The cache index: results by key and scope.
#[async_trait]
pub trait Results: Send + Sync {
    /// The shared results of `keys`, in their order; `None` is a miss. Counts as a use at `now`, which is noted in
    /// memory and written by [`Results::flush_uses`].
    async fn lookup(
        &self,
        keys: &[StepKey],
        scope: &Scope,
        now: UnixMillis,
    ) -> Result<Vec<Option<Arc<StepResult>>>, StoreError>;

    /// Writes the uses noted since the last call: results, and the blobs and flat files of their layers, were used
    /// then. Call it every few seconds and at shutdown; what is lost in a crash only makes garbage collection judge
    /// by older times. Returns how many results it noted.
    async fn flush_uses(&self) -> Result<usize, StoreError>;

    /// Makes `key` a miss in `scope`. Returns whether there was a result.
    async fn forget(&self, key: StepKey, scope: &Scope) -> Result<bool, StoreError>;

    /// The layer's bytes are lost: every result that contains it becomes a miss. Returns how many did.
    async fn forget_layer(&self, layer: LayerId) -> Result<usize, StoreError>;

    /// `worker` is lost with what only it had: every result that contains a layer made by it and not published
    /// becomes a miss. Returns the names of the steps to run again, for the log (at most 1,000 of them).
    async fn forget_unpublished_of(&self, worker: &WorkerId) -> Result<Vec<String>, StoreError>;

    /// Removes up to `limit` results that nobody has used since `before`, the least recently used first. Returns how
    /// many.
    async fn forget_unused(&self, before: UnixMillis, limit: u32) -> Result<usize, StoreError>;
}
