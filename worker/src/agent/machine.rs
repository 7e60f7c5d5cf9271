//! What all jobs of a worker share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use buildyard_solver::Trees;
use tokio::sync::Semaphore;

use super::cache::Cache;
use super::config::Offered;
use super::exec_step::Executor;
use super::job::Job;
use super::layers::Layers;
use super::link::Link;
use super::running::Running;
use super::slots::Slots;

/// The worker's parts.
pub(super) struct Machine {
    pub(super) link: Link,
    pub(super) layers: Layers,
    pub(super) cache: Arc<Cache>,
    pub(super) trees: Trees,
    pub(super) running: Arc<Running>,
    /// One for each step that may run at once.
    pub(super) slots: Slots,
    pub(super) jobs: Mutex<HashMap<String, Arc<Job>>>,
    pub(super) offered: Vec<Offered>,
    pub(super) executor: Option<Executor>,
    /// Uploads in the background.
    pub(super) uploads: tokio_util::task::TaskTracker,
    /// How many layers are published at once.
    pub(super) upload_slots: Semaphore,
    pub(super) allow_host_network: bool,
}
