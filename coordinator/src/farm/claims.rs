//! The steps that are running, as far as this process knows, and who waits for each.
//!
//! The store decides who holds a claim. This table only wakes those who wait, and hands a step's events to every build
//! that waits for it. After a restart it is empty, and waiting falls back to asking the store once a second.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use buildyard_model::{JobId, StepDigest, WorkerId};
use buildyard_proto::v1 as proto;
use buildyard_store::{ClaimKey, Generation, HeldClaim};
use tokio::sync::watch;

/// A step of a job.
pub(super) type JobStep = (JobId, StepDigest);

/// How many events of a step are kept for builds that come to wait for it later.
const BACKLOG: usize = 512;

/// How a run ended, for those who wait.
#[derive(Debug, Clone)]
pub(super) enum RunEnd {
    /// Its result is recorded.
    Done,
    /// The command failed; so it has for everybody who waits now.
    Failed(proto::Failure),
    /// It was given up: one of those who wait takes over.
    GivenUp,
}

/// A running step.
pub(super) struct Run {
    pub(super) held: HeldClaim,
    pub(super) owner: JobStep,
    pub(super) worker: WorkerId,
    end: watch::Sender<Option<RunEnd>>,
    audience: Mutex<Audience>,
}

#[derive(Default)]
struct Audience {
    watchers: Vec<JobStep>,
    backlog: Vec<proto::StepEvent>,
    owner_left: bool,
}

impl Run {
    /// Joins those who wait. Returns the events so far and the way to hear of the end.
    pub(super) fn watch(
        &self,
        by: JobStep,
    ) -> (Vec<proto::StepEvent>, watch::Receiver<Option<RunEnd>>) {
        let mut audience = self.audience();
        let backlog = if audience.watchers.contains(&by) || by == self.owner {
            Vec::new()
        } else {
            audience.watchers.push(by);
            audience.backlog.clone()
        };
        (backlog, self.end.subscribe())
    }

    /// Notes an event. Returns the other steps that it also happened to.
    pub(super) fn note(&self, event: &proto::StepEvent) -> Vec<JobStep> {
        let mut audience = self.audience();
        if audience.backlog.len() < BACKLOG {
            audience.backlog.push(event.clone());
        }
        audience.watchers.clone()
    }

    /// A job does not want the step any more. Returns whether nobody does.
    fn leave(&self, job: &JobId) -> bool {
        let mut audience = self.audience();
        audience.watchers.retain(|(watching, _)| watching != job);
        if self.owner.0 == *job {
            audience.owner_left = true;
        }
        audience.owner_left && audience.watchers.is_empty()
    }

    fn audience(&self) -> MutexGuard<'_, Audience> {
        self.audience
            .lock()
            .expect("nobody panics while holding it")
    }
}

/// All running steps.
#[derive(Default)]
pub(super) struct Claims {
    runs: Mutex<HashMap<ClaimKey, Arc<Run>>>,
}

impl Claims {
    /// A claim was given.
    pub(super) fn begin(
        &self,
        claim: ClaimKey,
        generation: Generation,
        owner: JobStep,
        worker: WorkerId,
    ) {
        let run = Run {
            held: HeldClaim {
                claim: claim.clone(),
                generation,
            },
            owner,
            worker,
            end: watch::Sender::new(None),
            audience: Mutex::default(),
        };
        if let Some(before) = self.lock().insert(claim, Arc::new(run)) {
            before.end.send_replace(Some(RunEnd::GivenUp));
        }
    }

    /// The run of this claim.
    pub(super) fn get(&self, claim: &ClaimKey) -> Option<Arc<Run>> {
        self.lock().get(claim).cloned()
    }

    /// The run that a job's step owns.
    pub(super) fn owned_by(&self, owner: &JobStep) -> Option<Arc<Run>> {
        self.lock()
            .values()
            .find(|run| run.owner == *owner)
            .cloned()
    }

    /// How many steps run on a worker.
    pub(super) fn running_on(&self, worker: &WorkerId) -> u32 {
        let runs = self.lock();
        u32::try_from(runs.values().filter(|run| run.worker == *worker).count()).unwrap_or(u32::MAX)
    }

    /// A run ended; wakes those who wait. Ends of a generation that is not the present one are ignored.
    pub(super) fn end(&self, held: &HeldClaim, end: RunEnd) {
        let mut runs = self.lock();
        if runs
            .get(&held.claim)
            .is_some_and(|run| run.held.generation == held.generation)
            && let Some(run) = runs.remove(&held.claim)
        {
            run.end.send_replace(Some(end));
        }
    }

    /// A job leaves. Returns the runs that nobody wants any more.
    pub(super) fn leave(&self, job: &JobId) -> Vec<Arc<Run>> {
        let runs: Vec<_> = self.lock().values().cloned().collect();
        runs.into_iter().filter(|run| run.leave(job)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ClaimKey, Arc<Run>>> {
        self.runs.lock().expect("nobody panics while holding it")
    }
}
