//! The steps that are running, as far as this process knows, and who waits for each.
//!
//! The store decides who holds a claim. This table only wakes those who wait, and hands a step's events to every build
//! that waits for it. After a restart it is empty; workers that come back show what they run, and that is adopted: it goes
//! on without an owner.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

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
    /// The step that it was claimed for; none for one that was adopted.
    pub(super) owner: Option<JobStep>,
    pub(super) worker: WorkerId,
    begun: Instant,
    end: watch::Sender<Option<RunEnd>>,
    audience: Mutex<Audience>,
}

#[derive(Default)]
struct Audience {
    watchers: Vec<JobStep>,
    backlog: Vec<proto::StepEvent>,
    owner_left: bool,
    /// Somebody has wanted it since this process knows of it. One that was adopted goes on until then.
    was_wanted: bool,
    /// Heartbeats in a row that did not show it.
    not_shown: u8,
}

impl Audience {
    fn is_empty(&self) -> bool {
        self.owner_left && self.watchers.is_empty()
    }

    /// Whether the last one who wanted it has left.
    fn has_left(&self) -> bool {
        self.was_wanted && self.is_empty()
    }
}

impl Run {
    /// Joins those who wait. Returns the events so far and the way to hear of the end.
    pub(super) fn watch(
        &self,
        by: JobStep,
    ) -> (Vec<proto::StepEvent>, watch::Receiver<Option<RunEnd>>) {
        let mut audience = self.audience();
        let backlog = if audience.watchers.contains(&by) || self.owner.as_ref() == Some(&by) {
            Vec::new()
        } else {
            audience.watchers.push(by);
            audience.was_wanted = true;
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

    /// A job does not want the step any more. Returns whether it was the last that did.
    fn leave(&self, job: &JobId) -> bool {
        let mut audience = self.audience();
        let watched = audience.watchers.len();
        audience.watchers.retain(|(watching, _)| watching != job);
        let owned =
            !audience.owner_left && self.owner.as_ref().is_some_and(|(owner, _)| owner == job);
        audience.owner_left |= owned;
        (owned || audience.watchers.len() < watched) && audience.is_empty()
    }

    /// A heartbeat came that did or did not show it. Returns whether its worker seems not to know of it: an answer to a
    /// claim may cross one heartbeat, not two.
    fn shown(&self, shown: bool) -> bool {
        let mut audience = self.audience();
        audience.not_shown = if shown { 0 } else { audience.not_shown + 1 };
        audience.not_shown >= 2
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
    /// A claim was given, or the answer is given again.
    pub(super) fn begin(
        &self,
        claim: ClaimKey,
        generation: Generation,
        owner: JobStep,
        worker: WorkerId,
    ) {
        self.insert(HeldClaim { claim, generation }, Some(owner), worker);
    }

    /// A worker shows a claim that it holds by right.
    pub(super) fn adopt(&self, held: HeldClaim, worker: &WorkerId) {
        self.insert(held, None, worker.clone());
    }

    fn insert(&self, held: HeldClaim, owner: Option<JobStep>, worker: WorkerId) {
        let mut runs = self.lock();
        if runs.get(&held.claim).is_some_and(|run| run.held == held) {
            return;
        }
        let audience = Audience {
            owner_left: owner.is_none(),
            was_wanted: owner.is_some(),
            ..Audience::default()
        };
        let run = Run {
            held: held.clone(),
            owner,
            worker,
            begun: Instant::now(),
            end: watch::Sender::new(None),
            audience: Mutex::new(audience),
        };
        if let Some(before) = runs.insert(held.claim, Arc::new(run)) {
            before.end.send_replace(Some(RunEnd::GivenUp));
        }
    }

    /// Whether a run is known and its last audience has left. One that was adopted has not had any yet.
    pub(super) fn is_unwanted(&self, held: &HeldClaim) -> bool {
        let run = self.get(&held.claim).filter(|run| run.held == *held);
        run.is_some_and(|run| run.audience().has_left())
    }

    /// All runs whose last audience has left: told to stop, and not ended yet.
    pub(super) fn unwanted(&self) -> Vec<Arc<Run>> {
        let runs = self.lock();
        let unwanted = runs.values().filter(|run| run.audience().has_left());
        unwanted.cloned().collect()
    }

    /// Claims that a worker should hold but does not show for the second time.
    pub(super) fn not_shown(&self, worker: &WorkerId, shown: &[HeldClaim]) -> Vec<HeldClaim> {
        let runs = self.lock();
        let of_worker = runs.values().filter(|run| run.worker == *worker);
        of_worker
            .filter(|run| run.shown(shown.contains(&run.held)))
            .map(|run| run.held.clone())
            .collect()
    }

    /// Runs that began that long ago and that nobody wants.
    pub(super) fn orphans(&self, age: Duration) -> Vec<Arc<Run>> {
        let runs = self.lock();
        let old = runs.values().filter(|run| run.begun.elapsed() > age);
        old.filter(|run| run.audience().is_empty())
            .cloned()
            .collect()
    }

    /// The run of this claim.
    pub(super) fn get(&self, claim: &ClaimKey) -> Option<Arc<Run>> {
        self.lock().get(claim).cloned()
    }

    /// The run that a job's step owns.
    pub(super) fn owned_by(&self, owner: &JobStep) -> Option<Arc<Run>> {
        self.lock()
            .values()
            .find(|run| run.owner.as_ref() == Some(owner))
            .cloned()
    }

    /// What runs on a worker.
    pub(super) fn of(&self, worker: &WorkerId) -> Vec<Arc<Run>> {
        let runs = self.lock();
        let of_worker = runs.values().filter(|run| run.worker == *worker);
        of_worker.cloned().collect()
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

    /// A job leaves. Returns the runs that nobody wants any more because of that.
    pub(super) fn leave(&self, job: &JobId) -> Vec<Arc<Run>> {
        let runs: Vec<_> = self.lock().values().cloned().collect();
        runs.into_iter().filter(|run| run.leave(job)).collect()
    }

    /// How many steps wait for a run of another's.
    #[cfg(test)]
    pub(super) fn watched(&self) -> usize {
        let runs = self.lock();
        runs.values().map(|run| run.audience().watchers.len()).sum()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ClaimKey, Arc<Run>>> {
        self.runs.lock().expect("nobody panics while holding it")
    }
}
