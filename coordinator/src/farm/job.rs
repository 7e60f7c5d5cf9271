//! Jobs as the coordinator holds them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use buildyard_model::{BuildId, Chain, JobId, Platform, Scope, StepDigest, WorkerId};
use buildyard_proto::v1 as proto;
use buildyard_scheduler::{Input, WantedNetworks};
use tokio::sync::mpsc;

use super::host::JobHost;

/// What the planner asks a worker to do.
pub struct JobRequest {
    /// The job's id, unique in the farm.
    pub id: JobId,
    /// The build that it belongs to.
    pub build: BuildId,
    /// Whose cache it uses.
    pub scope: Scope,
    /// What its steps execute on; `None` where nothing executes.
    pub platform: Option<Platform>,
    /// The order as the worker gets it.
    pub order: proto::StartJob,
    /// What it reads: workers that have it are preferred.
    pub inputs: Vec<Input>,
    /// The networks of its steps.
    pub networks: WantedNetworks,
    /// Workers that could not do it before: others are preferred.
    pub avoid: Vec<WorkerId>,
    /// The build behind it.
    pub host: Arc<dyn JobHost>,
}

/// What becomes of a job. The planner gets these in order.
#[derive(Debug)]
pub enum JobEvent {
    /// A worker has it now.
    Assigned {
        /// Which.
        worker: WorkerId,
        /// Its steps run under an emulator there.
        emulated: bool,
    },
    /// It waits for a worker; said once per change.
    Waiting {
        /// For people.
        reason: String,
    },
    /// A step's result is known.
    StepKnown {
        /// Which step.
        step: StepDigest,
        /// Its outputs.
        chains: Vec<Chain>,
    },
    /// All steps are known.
    Ended,
    /// It came to nothing.
    Failed(proto::Failure),
    /// No worker of the farm can do it.
    Refused {
        /// Why, with what the farm can do.
        reason: String,
    },
    /// Its worker is gone: plan what is missing anew.
    WorkerLost {
        /// Which.
        worker: WorkerId,
        /// Why it is counted as lost.
        reason: String,
    },
    /// Its worker is stopping. Steps that run there may still end; the rest goes elsewhere.
    GivenBack {
        /// Which.
        worker: WorkerId,
    },
}

/// A job under way.
pub(super) struct Job {
    pub(super) request: JobRequest,
    /// Where each step is in the order.
    numbers: HashMap<StepDigest, usize>,
    place: Mutex<Place>,
    events: mpsc::UnboundedSender<JobEvent>,
}

/// Where a job is. One lock for both: a result that becomes known while the job is handed over is in the order or follows it.
#[derive(Default)]
struct Place {
    worker: Option<WorkerId>,
    /// Inputs from elsewhere that became known after the job was queued.
    late: Vec<proto::KnownResult>,
    /// It is not wanted any more: whoever is about to hand it over does not.
    over: bool,
}

impl Job {
    pub(super) fn new(request: JobRequest) -> (Arc<Self>, mpsc::UnboundedReceiver<JobEvent>) {
        // Unbounded, but at most a few events per step of a graph whose size is bounded.
        let (events, receiver) = mpsc::unbounded_channel();
        let steps = request.order.steps.iter().enumerate();
        let numbers = steps
            .filter_map(|(number, step)| Some((step.digest.parse().ok()?, number)))
            .collect();
        (
            Arc::new(Self {
                request,
                numbers,
                place: Mutex::default(),
                events,
            }),
            receiver,
        )
    }

    /// One of its steps, as the worker gets it.
    pub(super) fn step(&self, step: &StepDigest) -> Option<&proto::JobStep> {
        self.request.order.steps.get(*self.numbers.get(step)?)
    }

    /// Tells the planner; it may have left.
    pub(super) fn tell(&self, event: JobEvent) {
        let _ = self.events.send(event);
    }

    pub(super) fn is_on(&self, worker: &WorkerId) -> bool {
        self.place().worker.as_ref() == Some(worker)
    }

    pub(super) fn worker(&self) -> Option<WorkerId> {
        self.place().worker.clone()
    }

    /// Hands the job to a worker: `send` gets the order with all that is known by now. Returns whether it has what is due:
    /// a job that is over is not sent.
    pub(super) fn assign(
        &self,
        worker: &WorkerId,
        send: impl FnOnce(proto::StartJob) -> bool,
    ) -> bool {
        let mut place = self.place();
        // Noted also where it is over: its end, which the scheduler hears of next, frees its place there.
        place.worker = Some(worker.clone());
        if place.over {
            return true;
        }
        let mut order = self.request.order.clone();
        order.known.extend(place.late.iter().cloned());
        send(order)
    }

    /// It is not wanted any more. Returns the worker that has the order, and has to be told.
    pub(super) fn end(&self) -> Option<WorkerId> {
        let mut place = self.place();
        place.over = true;
        place.worker.clone()
    }

    /// An input from elsewhere is known. `send` passes it on where the job has a worker already.
    pub(super) fn learn(
        &self,
        known: proto::KnownResult,
        send: impl FnOnce(&WorkerId, proto::KnownResult),
    ) {
        let mut place = self.place();
        place.late.push(known.clone());
        if let Some(worker) = &place.worker {
            send(worker, known);
        }
    }

    /// Inputs that became known after the job was queued: a worker that comes back may have missed them.
    pub(super) fn late(&self) -> Vec<proto::KnownResult> {
        self.place().late.clone()
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().expect("nobody panics while holding it")
    }
}
