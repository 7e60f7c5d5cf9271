//! The farm: workers, their jobs, and the claims on steps.
//!
//! The planner hands jobs in ([`Farm::submit`]) and hears what becomes of them ([`JobEvent`]). Workers come in through
//! [`service`]. Who gets which job is the scheduler's decision ([`dispatch`]); who may run a step is the store's
//! (`claim_step`). A worker that falls silent keeps its steps for a grace time; then it is lost, its claims lapse, and the
//! planner plans anew what is still missing.

mod attach;
mod claims;
mod closing;
mod convert;
mod dispatch;
mod flats;
mod host;
mod job;
mod secrets;
mod service;
mod steps;
mod sweep;
#[cfg(test)]
mod tests;
mod workers;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use buildyard_model::{JobId, WorkerId};
use buildyard_proto::v1::{self as proto, to_worker};
use buildyard_store::{Store, StoreError, UnixMillis, WorkerRecord};
use tokio::sync::{Notify, RwLock, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::layers::LayerStore;

pub use convert::chains_of;
pub use host::JobHost;
pub use job::{JobEvent, JobRequest};
pub use service::{FarmService, MAX_MESSAGE_BYTES};
pub use workers::Offer;

/// How the farm treats its workers.
#[derive(Debug, Clone)]
pub struct FarmConfig {
    /// How often a worker says that it is there.
    pub heartbeat: Duration,
    /// How long a claim stays without a heartbeat.
    pub claim_ttl: Duration,
    /// How long a worker whose connection broke is waited for before its work goes elsewhere.
    pub worker_grace: Duration,
    /// How long a job waits for a known worker that is away before it is refused.
    pub away_grace: Duration,
    /// How long a stopping coordinator waits for the workers to have stopped what nobody wants any more.
    pub settle_within: Duration,
}

impl Default for FarmConfig {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(5),
            claim_ttl: Duration::from_secs(30),
            worker_grace: Duration::from_secs(5),
            away_grace: Duration::from_secs(30),
            settle_within: Duration::from_secs(10),
        }
    }
}

/// The farm of one coordinator.
pub struct Farm {
    config: FarmConfig,
    store: Arc<dyn Store>,
    layers: Arc<LayerStore>,
    workers: workers::Workers,
    claims: claims::Claims,
    jobs: Mutex<HashMap<JobId, Arc<job::Job>>>,
    /// Whether claims are given; held for reading while one is.
    gives_claims: RwLock<bool>,
    /// Every worker that was ever here, as it last registered.
    known: Mutex<BTreeMap<WorkerId, WorkerRecord>>,
    dispatch: mpsc::UnboundedSender<dispatch::Input>,
    /// Something about layers or workers changed that somebody may wait for.
    changed: Notify,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

impl Farm {
    /// A farm without connected workers, and its scheduling loop as a task that ends with `cancel`.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn start(
        config: FarmConfig,
        store: Arc<dyn Store>,
        layers: Arc<LayerStore>,
        cancel: CancellationToken,
    ) -> Result<Arc<Self>, StoreError> {
        let known = store.workers().await?;
        let (dispatch, inputs) = mpsc::unbounded_channel();
        let farm = Arc::new(Self {
            config,
            store,
            layers,
            workers: workers::Workers::default(),
            claims: claims::Claims::default(),
            jobs: Mutex::default(),
            gives_claims: RwLock::new(true),
            known: Mutex::new(
                known
                    .iter()
                    .map(|record| (record.id.clone(), record.clone()))
                    .collect(),
            ),
            dispatch,
            changed: Notify::new(),
            tasks: TaskTracker::new(),
            cancel,
        });
        for record in known {
            farm.workers.expect(&record);
            farm.schedule(dispatch::Input::Known(record));
        }
        farm.tasks.spawn(dispatch::run(farm.clone(), inputs));
        farm.tasks.spawn(sweep::run(farm.clone()));
        farm.tasks.spawn(attach::give_up_absent(farm.clone()));
        Ok(farm)
    }

    /// Workers with a live connection.
    pub fn connected(&self) -> Vec<Offer> {
        self.workers.connected()
    }

    /// Every worker that was ever here, connected or not, as it last registered.
    pub fn known(&self) -> Vec<WorkerRecord> {
        self.known
            .lock()
            .expect("nobody panics while holding it")
            .values()
            .cloned()
            .collect()
    }

    /// How many steps run on a worker, as far as this process knows.
    pub fn running_on(&self, worker: &WorkerId) -> u32 {
        self.claims.running_on(worker)
    }

    /// How many jobs wait for a worker, and how many have one.
    pub fn jobs(&self) -> (usize, usize) {
        let jobs = self.lock_jobs();
        let waiting = jobs.values().filter(|job| job.worker().is_none()).count();
        (waiting, jobs.len() - waiting)
    }

    fn is_known(&self, worker: &WorkerId) -> bool {
        self.known
            .lock()
            .expect("nobody panics while holding it")
            .contains_key(worker)
    }

    fn note_known(&self, record: WorkerRecord) {
        self.known
            .lock()
            .expect("nobody panics while holding it")
            .insert(record.id.clone(), record);
    }

    /// Queues a job.
    pub fn submit(&self, request: JobRequest) -> mpsc::UnboundedReceiver<JobEvent> {
        let (job, events) = job::Job::new(request);
        self.lock_jobs().insert(job.request.id.clone(), job.clone());
        self.schedule(dispatch::Input::Queued(job));
        events
    }

    /// A job is not wanted any more. Its steps that others wait for go on, the rest is stopped.
    pub fn cancel(&self, id: &JobId, reason: &str) {
        let Some(job) = self.lock_jobs().remove(id) else {
            return;
        };
        self.schedule(dispatch::Input::Ended(id.clone()));
        if let Some(worker) = job.end() {
            let order = proto::CancelJob {
                job: id.to_string(),
                reason: reason.to_owned(),
            };
            self.workers
                .order(&worker, to_worker::Order::CancelJob(order));
        }
        self.stop_unwanted(id, reason);
    }

    /// Tells a job that an input which another job evaluates is known.
    pub fn step_known(&self, id: &JobId, known: proto::KnownResult) {
        let Some(job) = self.job(id) else { return };
        job.learn(known, |worker, known| self.order_known(worker, id, known));
    }

    fn order_known(&self, worker: &WorkerId, job: &JobId, known: proto::KnownResult) {
        let order = proto::StepKnown {
            job: job.to_string(),
            step: known.step,
            result: known.result,
        };
        self.workers
            .order(worker, to_worker::Order::StepKnown(order));
    }

    /// Stops the runs that nobody wants once `job` has left.
    fn stop_unwanted(&self, job: &JobId, reason: &str) {
        for run in self.claims.leave(job) {
            let order = proto::StopStep {
                claim: Some(convert::held_to(&run.held)),
                reason: reason.to_owned(),
            };
            self.workers
                .order(&run.worker, to_worker::Order::StopStep(order));
        }
    }

    /// A job came to its end on its worker.
    fn job_ended(&self, id: &JobId, failure: Option<proto::Failure>) {
        let Some(job) = self.lock_jobs().remove(id) else {
            return;
        };
        self.schedule(dispatch::Input::Ended(id.clone()));
        let reason = "another step of the job failed";
        match failure {
            None => job.tell(JobEvent::Ended),
            Some(failure) => {
                self.stop_unwanted(id, reason);
                job.tell(JobEvent::Failed(failure));
            }
        }
    }

    /// A worker is gone for good: its claims lapse, its jobs are planned anew.
    async fn worker_lost(&self, worker: &WorkerId, reason: &str) -> Result<(), StoreError> {
        tracing::info!(worker_id = %worker, reason, "a worker is given up");
        for lapsed in self.store.release_worker(worker, now()).await? {
            self.claims.end(&lapsed.held, claims::RunEnd::GivenUp);
        }
        let unpublished = self.store.forget_unpublished_of(worker).await?;
        if !unpublished.is_empty() {
            tracing::warn!(worker_id = %worker, steps = ?unpublished, "finished steps went with the worker and are run again");
        }
        self.layers.forget_memory();
        for job in self.jobs_on(worker) {
            self.take_back(&job);
            job.tell(JobEvent::WorkerLost {
                worker: worker.clone(),
                reason: reason.to_owned(),
            });
        }
        self.schedule(dispatch::Input::Lost(worker.clone()));
        self.changed.notify_waiters();
        Ok(())
    }

    /// A worker is stopping: it ends the steps that it runs, the rest of its jobs is planned anew.
    fn worker_draining(&self, worker: &WorkerId) {
        self.schedule(dispatch::Input::Draining(worker.clone()));
        for job in self.jobs_on(worker) {
            self.take_back(&job);
            job.tell(JobEvent::GivenBack {
                worker: worker.clone(),
            });
        }
    }

    /// A job is its worker's no more; what it runs there goes on for whoever asks for it next.
    fn take_back(&self, job: &job::Job) {
        job.end();
        self.lock_jobs().remove(&job.request.id);
        self.schedule(dispatch::Input::Ended(job.request.id.clone()));
        self.claims.leave(&job.request.id);
    }

    fn jobs_on(&self, worker: &WorkerId) -> Vec<Arc<job::Job>> {
        let jobs = self.lock_jobs();
        let on_it = jobs.values().filter(|job| job.is_on(worker));
        on_it.cloned().collect()
    }

    fn schedule(&self, input: dispatch::Input) {
        // The loop ends only with the farm.
        let _ = self.dispatch.send(input);
    }

    fn job(&self, id: &JobId) -> Option<Arc<job::Job>> {
        self.lock_jobs().get(id).cloned()
    }

    fn lock_jobs(&self) -> MutexGuard<'_, HashMap<JobId, Arc<job::Job>>> {
        self.jobs.lock().expect("nobody panics while holding it")
    }
}

/// The one place where the farm looks at the clock.
fn now() -> UnixMillis {
    UnixMillis::from(SystemTime::now())
}
