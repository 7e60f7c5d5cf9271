//! The workers that the farm has seen, also while they are away.

use async_trait::async_trait;
use buildyard_model::{Platform, WorkerId};

use crate::{StoreError, UnixMillis};

/// A worker as it last registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerRecord {
    /// Its name.
    pub id: WorkerId,
    /// What it runs natively.
    pub native: Vec<Platform>,
    /// What it runs under QEMU.
    pub emulated: Vec<Platform>,
    /// How many steps at once.
    pub slots: u32,
    /// When it was last heard of.
    pub seen: UnixMillis,
}

/// Known workers.
#[async_trait]
pub trait Workers: Send + Sync {
    /// A worker registered, or was heard of again.
    async fn put_worker(&self, worker: &WorkerRecord) -> Result<(), StoreError>;

    /// All known workers, by id.
    async fn workers(&self) -> Result<Vec<WorkerRecord>, StoreError>;

    /// Forgets workers last heard of before `before`. Returns how many.
    async fn forget_workers(&self, before: UnixMillis) -> Result<usize, StoreError>;
}
