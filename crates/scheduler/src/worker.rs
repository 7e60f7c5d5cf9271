//! One worker as the scheduler sees it.

use std::collections::BTreeMap;

use buildyard_model::JobId;

use crate::{Job, WorkerInfo};

/// Whether a worker can be reached; later ones are better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Presence {
    Unknown,
    /// Known and not connected, or taking nothing at the moment.
    Away,
    Connected,
}

/// A known worker.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) info: WorkerInfo,
    pub(crate) connected: bool,
    pub(crate) draining: bool,
    /// What it runs, with the weight that each job has there.
    pub(crate) running: BTreeMap<JobId, u32>,
}

impl Worker {
    pub(crate) fn away(info: WorkerInfo) -> Self {
        Self {
            info,
            connected: false,
            draining: false,
            running: BTreeMap::new(),
        }
    }

    pub(crate) fn presence(&self) -> Presence {
        let takes = self.connected && !self.draining && self.info.slots > 0;
        if takes {
            Presence::Connected
        } else {
            Presence::Away
        }
    }

    pub(crate) fn free(&self) -> u32 {
        self.info.slots.saturating_sub(self.running.values().sum())
    }

    /// How many slots the job takes here.
    pub(crate) fn weight_of(&self, job: &Job) -> u32 {
        job.weight.clamp(1, self.info.slots.max(1))
    }
}
