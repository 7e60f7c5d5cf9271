//! One worker as the scheduler sees it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};

use buildyard_model::{JobId, Mark};

use crate::{HeldChange, Job, WorkerInfo};

/// Whether a worker can be reached; later ones are better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Presence {
    Unknown,
    /// Known and not connected, or taking nothing at the moment.
    Away,
    Connected,
}

/// How a worker runs a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    Native,
    Emulated,
}

/// How well a worker suits a job that it can take; the least is the best.
pub(crate) type Fitness = (bool, bool, bool, Reverse<u64>, Reverse<u32>, u64);

/// A known worker.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) info: WorkerInfo,
    pub(crate) connected: bool,
    pub(crate) draining: bool,
    /// What it runs, with the weight that each job has there.
    pub(crate) running: BTreeMap<JobId, u32>,
    /// What lies on its disk.
    held: HashSet<Mark>,
    jobs_per_slot: u32,
}

impl Worker {
    pub(crate) fn away(info: WorkerInfo, jobs_per_slot: u32) -> Self {
        Self {
            info,
            connected: false,
            draining: false,
            running: BTreeMap::new(),
            held: HashSet::new(),
            jobs_per_slot: jobs_per_slot.max(1),
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

    /// How it would run the job's platform, whatever networks that needs.
    pub(crate) fn platform_of(&self, job: &Job) -> Option<How> {
        match &job.platform {
            None => Some(How::Native),
            Some(platform) if self.info.native.contains(platform) => Some(How::Native),
            Some(platform) if self.info.emulated.contains(platform) => Some(How::Emulated),
            Some(_) => None,
        }
    }

    /// How it would run the job, if it can.
    pub(crate) fn runs(&self, job: &Job) -> Option<How> {
        let allowed = self.info.networks.host || !job.networks.host;
        self.platform_of(job).filter(|_| allowed)
    }

    /// How much weight of jobs it has room for.
    pub(crate) fn free(&self) -> u32 {
        let all = self.info.slots.saturating_mul(self.jobs_per_slot);
        all.saturating_sub(self.taken())
    }

    /// How much room the job takes here: no more than all the slots.
    pub(crate) fn weight_of(&self, job: &Job) -> u32 {
        job.weight.clamp(1, self.info.slots.max(1))
    }

    pub(crate) fn fitness(&self, job: &Job, has_given_back: bool) -> Fitness {
        let free = self.info.slots.saturating_sub(self.taken());
        let load = u64::from(self.taken()) * 1000 / u64::from(self.info.slots.max(1));
        (
            has_given_back || job.avoid.contains(&self.info.id),
            job.networks.default && !self.info.networks.private,
            free < self.weight_of(job),
            Reverse(self.local_bytes(job)),
            Reverse(free),
            load,
        )
    }

    /// Forgets what it held before and notes this, at most `most`.
    pub(crate) fn holds(&mut self, all: Vec<Mark>, most: usize) {
        self.held = all.into_iter().take(most).collect();
    }

    /// Notes what came and went, as long as it is not more than `most`.
    pub(crate) fn held_changed(&mut self, change: HeldChange, most: usize) {
        for mark in &change.removed {
            self.held.remove(mark);
        }
        let room = most.saturating_sub(self.held.len());
        self.held.extend(change.added.into_iter().take(room));
    }

    fn local_bytes(&self, job: &Job) -> u64 {
        let local = job
            .inputs
            .iter()
            .filter(|input| self.held.contains(&input.mark));
        local.fold(0, |sum, input| sum.saturating_add(input.bytes))
    }

    pub(crate) fn taken(&self) -> u32 {
        self.running.values().sum()
    }
}
