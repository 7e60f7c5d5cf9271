//! The jobs that wait: builds in a ring, each with its jobs in order.

use std::collections::{HashMap, VecDeque};

use buildyard_model::{BuildId, JobId};

#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// Builds with waiting jobs; the first is served first.
    ring: VecDeque<BuildId>,
    jobs: HashMap<BuildId, VecDeque<JobId>>,
}

impl Queue {
    pub(crate) fn push_back(&mut self, build: &BuildId, job: JobId) {
        self.jobs.entry(build.clone()).or_default().push_back(job);
        if !self.ring.contains(build) {
            self.ring.push_back(build.clone());
        }
    }

    /// Before everything else.
    pub(crate) fn push_front(&mut self, build: &BuildId, job: JobId) {
        self.jobs.entry(build.clone()).or_default().push_front(job);
        self.ring.retain(|other| other != build);
        self.ring.push_front(build.clone());
    }

    /// Takes a job out. Its build keeps its place in the ring while it has others.
    pub(crate) fn remove(&mut self, build: &BuildId, job: &JobId) {
        let Some(jobs) = self.jobs.get_mut(build) else {
            return;
        };
        jobs.retain(|other| other != job);
        if jobs.is_empty() {
            self.jobs.remove(build);
            self.ring.retain(|other| other != build);
        }
    }

    /// A build was served: it comes last now, if it still waits for anything.
    pub(crate) fn served(&mut self, build: &BuildId) {
        if let Some(at) = self.ring.iter().position(|other| other == build)
            && let Some(build) = self.ring.remove(at)
        {
            self.ring.push_back(build);
        }
    }

    /// All that waits, in turns: the first job of each build, then the second of each, and so on.
    pub(crate) fn order(&self) -> Vec<JobId> {
        let queues: Vec<&VecDeque<JobId>> = self
            .ring
            .iter()
            .filter_map(|build| self.jobs.get(build))
            .collect();
        let rounds = queues.iter().map(|queue| queue.len()).max().unwrap_or(0);
        let turns =
            (0..rounds).flat_map(|round| queues.iter().filter_map(move |queue| queue.get(round)));
        turns.cloned().collect()
    }
}
