//! The scheduler's shell: reads events, asks [`buildyard_scheduler::decide`], carries decisions out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use buildyard_model::{JobId, Mark, WorkerId};
use buildyard_proto::v1::to_worker;
use buildyard_scheduler::{
    Config, Decision, Event, HeldChange, Networks, State, WorkerInfo, decide,
};
use buildyard_store::WorkerRecord;
use tokio::sync::mpsc;

use super::job::Job;
use super::workers::Offer;
use super::{Farm, JobEvent};

/// The scheduler counts jobs; how many steps run at once is the worker's own affair, by its slots. A job may wait for a step
/// of another one, which may have to run on the same worker: jobs must not keep each other out. This many is as good as no limit.
const JOBS_PER_SLOT: u32 = 10_000;

/// What the loop is told.
pub(super) enum Input {
    Known(WorkerRecord),
    /// A worker, and all that lies on its disk.
    Joined(Offer, Vec<Mark>),
    Holds(WorkerId, HeldChange),
    Away(WorkerId),
    Lost(WorkerId),
    Draining(WorkerId),
    Queued(Arc<Job>),
    Ended(JobId),
}

/// Runs until the farm ends.
pub(super) async fn run(farm: Arc<Farm>, mut inputs: mpsc::UnboundedReceiver<Input>) {
    let config = Config {
        jobs_per_slot: JOBS_PER_SLOT,
        away_grace: farm.config.away_grace,
        coordinator_runs: false,
        ..Config::default()
    };
    let mut state = State::new(config);
    let mut queued: HashMap<JobId, Arc<Job>> = HashMap::new();
    loop {
        let now = Instant::now();
        let wake = state
            .next_wake(now)
            .unwrap_or(now + Duration::from_secs(1))
            .max(now + Duration::from_millis(1));
        let input = tokio::select! {
            input = inputs.recv() => input,
            () = tokio::time::sleep_until(wake.into()) => None,
            () = farm.cancel.cancelled() => return,
        };
        let event = match input {
            None => Event::Tick,
            Some(input) => event(input, &mut queued),
        };
        for decision in decide(&mut state, event, Instant::now()) {
            carry_out(&farm, &mut queued, decision);
        }
    }
}

fn event(input: Input, queued: &mut HashMap<JobId, Arc<Job>>) -> Event {
    match input {
        Input::Known(record) => Event::WorkerKnown(WorkerInfo {
            id: record.id,
            native: record.native,
            emulated: record.emulated,
            slots: record.slots,
            // What it allowed is not recorded. While it is away it is waited for; it says anew when it comes back.
            networks: Networks {
                private: true,
                host: true,
            },
        }),
        Input::Joined(offer, holds) => {
            let running = queued.values().filter(|job| job.is_on(&offer.id));
            let running = running.map(|job| job.request.id.clone()).collect();
            joined(offer, running, holds)
        }
        Input::Holds(worker, change) => Event::WorkerHolds { worker, change },
        // Within its grace time a worker keeps its jobs but gets no new ones.
        Input::Away(worker) | Input::Draining(worker) => Event::WorkerDraining(worker),
        Input::Lost(worker) => Event::WorkerLost(worker),
        Input::Queued(job) => {
            let request = &job.request;
            let event = Event::JobQueued(buildyard_scheduler::Job {
                id: request.id.clone(),
                build: request.build.clone(),
                platform: request.platform.clone(),
                weight: 1,
                inputs: request.inputs.clone(),
                networks: request.networks,
                avoid: request.avoid.iter().cloned().collect(),
            });
            queued.insert(request.id.clone(), job);
            event
        }
        Input::Ended(job) => match queued.remove(&job).and_then(|job| job.worker()) {
            Some(worker) => Event::JobFinished { job, worker },
            None => Event::JobCancelled(job),
        },
    }
}

fn joined(offer: Offer, running: Vec<JobId>, holds: Vec<Mark>) -> Event {
    let has = |network: &str| offer.networks.iter().any(|name| name == network);
    let networks = Networks {
        private: has("private"),
        host: has("host"),
    };
    Event::WorkerJoined {
        worker: WorkerInfo {
            networks,
            id: offer.id,
            native: offer.native,
            emulated: offer
                .emulated
                .into_iter()
                .map(|(platform, _)| platform)
                .collect(),
            slots: offer.slots,
        },
        running,
        holds,
    }
}

fn carry_out(farm: &Farm, queued: &mut HashMap<JobId, Arc<Job>>, decision: Decision) {
    match decision {
        Decision::Assign {
            job,
            worker,
            emulated,
        } => {
            let Some(job) = queued.get(&job) else { return };
            job.tell(JobEvent::Assigned {
                worker: worker.clone(),
                emulated,
            });
            let send = |order| {
                farm.workers
                    .order(&worker, to_worker::Order::StartJob(order))
            };
            if !job.assign(&worker, send) {
                // Nothing more goes there until it is connected again.
                farm.schedule(Input::Away(worker.clone()));
                farm.take_back(job);
                let reason = "it did not take the job".to_owned();
                job.tell(JobEvent::WorkerLost { worker, reason });
            }
        }
        Decision::Refuse { job, reason } => {
            farm.lock_jobs().remove(&job);
            if let Some(job) = queued.remove(&job) {
                job.tell(JobEvent::Refused {
                    reason: reason.to_string(),
                });
            }
        }
        Decision::StillWaiting { job, position, why } => {
            if let Some(job) = queued.get(&job) {
                job.tell(JobEvent::Waiting {
                    reason: format!("{why} (place {position} in the queue)"),
                });
            }
        }
        // Jobs of lost workers are planned anew by their builds, never by the scheduler, so none is resumed; and a worker that is told to stop
        // a job has been told so when the job was cancelled.
        Decision::Resume { .. } | Decision::Stop { .. } | Decision::RunHere { .. } => {}
    }
}
