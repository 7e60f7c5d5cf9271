//! The farm as the scheduler sees it, and how events change it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Instant;

use buildyard_model::{JobId, WorkerId};

use crate::place::{Place, Placement};
use crate::queue::Queue;
use crate::worker::{How, Worker};
use crate::{Config, Decision, Event, Job, Refusal, Waiting, WorkerInfo};

/// The farm: known workers, and the jobs that are not done.
#[derive(Debug)]
pub struct State {
    config: Config,
    workers: BTreeMap<WorkerId, Worker>,
    tasks: HashMap<JobId, Task>,
    queue: Queue,
    waiting: usize,
}

/// A job that is not done.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) job: Job,
    /// Since when it waits.
    pub(crate) since: Instant,
    /// Workers that gave it back.
    pub(crate) avoid: BTreeSet<WorkerId>,
    losses: u32,
    at: At,
}

/// Where a job is. Waiting → Running (assigned, resumed) → gone (finished) or Waiting again (its worker was lost or
/// gave it back). Running → Stopping (cancelled) → gone (finished, or its worker was lost).
#[derive(Debug, Clone, PartialEq, Eq)]
enum At {
    /// In the queue; what its client was told last.
    Waiting(Option<(usize, Waiting)>),
    Running(WorkerId),
    Stopping(WorkerId),
}

impl State {
    /// A farm without workers and jobs.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            workers: BTreeMap::new(),
            tasks: HashMap::new(),
            queue: Queue::default(),
            waiting: 0,
        }
    }

    /// How many jobs wait, for metrics and autoscaling.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many slots of connected workers are taken, and how many there are.
    pub fn slots(&self) -> (u32, u32) {
        let connected = self.workers.values().filter(|worker| worker.connected);
        connected.fold((0, 0), |(taken, all), worker| {
            (taken + worker.taken(), all + worker.info.slots)
        })
    }

    /// The next moment after `now` at which patience with some waiting job ends. Events before that bring their own
    /// changes.
    pub fn next_wake(&self, now: Instant) -> Option<Instant> {
        let waiting = self
            .tasks
            .values()
            .filter(|task| matches!(task.at, At::Waiting(_)));
        let ends = waiting.flat_map(|task| {
            [self.config.away_grace, self.config.busy_grace].map(|grace| task.since + grace)
        });
        ends.filter(|end| *end > now).min()
    }

    pub(crate) fn take_in(&mut self, event: Event, now: Instant, decisions: &mut Vec<Decision>) {
        match event {
            Event::WorkerKnown(info) => {
                let jobs_per_slot = self.config.jobs_per_slot;
                self.workers
                    .entry(info.id.clone())
                    .or_insert_with(|| Worker::away(info, jobs_per_slot));
            }
            Event::WorkerJoined {
                worker,
                running,
                holds,
            } => {
                let id = worker.id.clone();
                self.join(worker, &running, now, decisions);
                if let Some(worker) = self.workers.get_mut(&id) {
                    worker.holds(holds, self.config.max_held);
                }
            }
            Event::WorkerHolds { worker, change } => {
                if let Some(worker) = self.workers.get_mut(&worker) {
                    worker.held_changed(change, self.config.max_held);
                }
            }
            Event::WorkerUpdated(info) => {
                if let Some(worker) = self.workers.get_mut(&info.id) {
                    worker.info = info;
                }
            }
            Event::WorkerLost(id) => self.lose(&id, now, decisions),
            Event::WorkerDraining(id) => {
                if let Some(worker) = self.workers.get_mut(&id) {
                    worker.draining = true;
                }
            }
            Event::WorkerForgotten(id) => {
                self.lose(&id, now, decisions);
                self.workers.remove(&id);
            }
            Event::JobQueued(job) => self.enqueue(job, now, decisions),
            Event::JobFinished { job, worker } => self.finish(&job, &worker),
            Event::JobReturned { job, worker } => self.give_back(&job, &worker, now, decisions),
            Event::JobCancelled(job) => self.cancel(&job, decisions),
            Event::Tick => {}
        }
    }

    /// A worker that joins anew without having been lost first has lost what it does not show any more.
    fn join(
        &mut self,
        info: WorkerInfo,
        running: &[JobId],
        now: Instant,
        decisions: &mut Vec<Decision>,
    ) {
        let (id, jobs_per_slot) = (info.id.clone(), self.config.jobs_per_slot);
        let before = self
            .workers
            .entry(id.clone())
            .or_insert_with(|| Worker::away(info.clone(), jobs_per_slot));
        let gone: Vec<JobId> = before
            .running
            .keys()
            .filter(|job| !running.contains(job))
            .cloned()
            .collect();
        before.info = info;
        (before.connected, before.draining) = (true, false);
        for job in gone {
            self.lose_job(&job, &id, now, decisions);
        }
        for job in running {
            self.show(job, &id, decisions);
        }
    }

    /// A worker that has joined shows a job.
    fn show(&mut self, id: &JobId, worker_id: &WorkerId, decisions: &mut Vec<Decision>) {
        let (job, worker) = (id.clone(), worker_id.clone());
        match self.tasks.get(id).map(|task| &task.at) {
            Some(At::Waiting(_)) => self.resume(id, worker_id, decisions),
            Some(At::Running(holder)) if *holder == worker => {}
            _ => decisions.push(Decision::Stop { job, worker }),
        }
    }

    /// The job goes on where it never stopped, even if that worker would have no room for a new one: it takes what is
    /// left, so that its slots are not exceeded. Where nothing is left it has to stop.
    fn resume(&mut self, id: &JobId, worker_id: &WorkerId, decisions: &mut Vec<Decision>) {
        let (job, worker) = (id.clone(), worker_id.clone());
        let (Some(task), Some(host)) = (self.tasks.get_mut(id), self.workers.get_mut(worker_id))
        else {
            return;
        };
        let weight = host.weight_of(&task.job).min(host.free());
        let Some(how) = host.runs(&task.job).filter(|_| weight > 0) else {
            decisions.push(Decision::Stop { job, worker });
            return;
        };
        host.running.insert(job.clone(), weight);
        task.at = At::Running(worker.clone());
        // It was not lost after all.
        task.losses = task.losses.saturating_sub(1);
        self.waiting -= 1;
        self.queue.remove(&task.job.build, id);
        decisions.push(Decision::Resume {
            job,
            worker,
            emulated: how == How::Emulated,
        });
    }

    fn lose(&mut self, id: &WorkerId, now: Instant, decisions: &mut Vec<Decision>) {
        let Some(worker) = self.workers.get_mut(id) else {
            return;
        };
        worker.connected = false;
        let running: Vec<JobId> = worker.running.keys().cloned().collect();
        // The last one put in front is the first: in reverse they keep their order.
        for job in running.iter().rev() {
            self.lose_job(job, id, now, decisions);
        }
    }

    /// The job is not on that worker any more, through no fault of its own.
    fn lose_job(
        &mut self,
        id: &JobId,
        worker: &WorkerId,
        now: Instant,
        decisions: &mut Vec<Decision>,
    ) {
        if let Some(worker) = self.workers.get_mut(worker) {
            worker.running.remove(id);
        }
        let Some(task) = self.tasks.get_mut(id) else {
            return;
        };
        task.losses += 1;
        if task.at == At::Stopping(worker.clone()) {
            self.tasks.remove(id);
        } else if task.losses >= self.config.max_losses {
            let reason = Refusal::LostTooOften { times: task.losses };
            self.tasks.remove(id);
            decisions.push(Decision::Refuse {
                job: id.clone(),
                reason,
            });
        } else {
            (task.at, task.since) = (At::Waiting(None), now);
            self.waiting += 1;
            self.queue.push_front(&task.job.build, id.clone());
        }
    }

    fn enqueue(&mut self, job: Job, now: Instant, decisions: &mut Vec<Decision>) {
        if self.tasks.contains_key(&job.id) {
            return;
        }
        if self.waiting >= self.config.max_waiting {
            let reason = Refusal::QueueFull {
                limit: self.config.max_waiting,
            };
            decisions.push(Decision::Refuse {
                job: job.id,
                reason,
            });
            return;
        }
        self.waiting += 1;
        self.queue.push_back(&job.build, job.id.clone());
        let task = Task {
            since: now,
            avoid: BTreeSet::new(),
            losses: 0,
            at: At::Waiting(None),
            job,
        };
        self.tasks.insert(task.job.id.clone(), task);
    }

    /// Whether the job is that worker's; a report about any other is late.
    fn is_on(&self, job: &JobId, worker: &WorkerId) -> bool {
        self.workers
            .get(worker)
            .is_some_and(|worker| worker.running.contains_key(job))
    }

    fn finish(&mut self, job: &JobId, worker: &WorkerId) {
        if self.is_on(job, worker) {
            self.tasks.remove(job);
            if let Some(worker) = self.workers.get_mut(worker) {
                worker.running.remove(job);
            }
        }
    }

    fn give_back(
        &mut self,
        job: &JobId,
        worker: &WorkerId,
        now: Instant,
        decisions: &mut Vec<Decision>,
    ) {
        if self.is_on(job, worker) {
            self.lose_job(job, worker, now, decisions);
            if let Some(task) = self.tasks.get_mut(job) {
                task.avoid.insert(worker.clone());
            }
        }
    }

    fn cancel(&mut self, id: &JobId, decisions: &mut Vec<Decision>) {
        let Some(task) = self.tasks.get_mut(id) else {
            return;
        };
        match task.at.clone() {
            At::Waiting(_) => self.drop_waiting(id),
            At::Running(worker) => {
                task.at = At::Stopping(worker.clone());
                decisions.push(Decision::Stop {
                    job: id.clone(),
                    worker,
                });
            }
            At::Stopping(_) => {}
        }
    }

    fn drop_waiting(&mut self, id: &JobId) {
        if let Some(task) = self.tasks.remove(id) {
            self.waiting -= 1;
            self.queue.remove(&task.job.build, id);
        }
    }

    /// Places all that can be placed, in turns. One pass is enough: placing a job never makes room for another.
    pub(crate) fn assign(&mut self, now: Instant, decisions: &mut Vec<Decision>) {
        let mut kept = HashSet::new();
        for id in self.queue.order() {
            let Some(placement) = self.placement(&id, &kept, now) else {
                continue;
            };
            match placement {
                Placement::On { worker, emulated } => {
                    self.start(&id, &worker);
                    decisions.push(Decision::Assign {
                        job: id,
                        worker,
                        emulated,
                    });
                }
                Placement::Here => {
                    self.drop_waiting(&id);
                    decisions.push(Decision::RunHere { job: id });
                }
                Placement::Wait { keep, .. } => kept.extend(keep),
                Placement::Never(reason) => {
                    self.drop_waiting(&id);
                    decisions.push(Decision::Refuse { job: id, reason });
                }
            }
        }
    }

    fn placement(&self, id: &JobId, kept: &HashSet<WorkerId>, now: Instant) -> Option<Placement> {
        let task = self.tasks.get(id)?;
        let place = Place {
            config: &self.config,
            workers: self.workers.values().collect(),
            kept,
            now,
        };
        Some(place.place(task))
    }

    fn start(&mut self, id: &JobId, worker_id: &WorkerId) {
        let (Some(task), Some(worker)) = (self.tasks.get_mut(id), self.workers.get_mut(worker_id))
        else {
            return;
        };
        worker
            .running
            .insert(id.clone(), worker.weight_of(&task.job));
        task.at = At::Running(worker_id.clone());
        self.waiting -= 1;
        self.queue.remove(&task.job.build, id);
        self.queue.served(&task.job.build);
    }

    /// Says of each waiting job what has changed about its waiting.
    pub(crate) fn tell_waiting(&mut self, now: Instant, decisions: &mut Vec<Decision>) {
        let mut positions = HashMap::new();
        for id in self.queue.order() {
            let placement = self.placement(&id, &HashSet::new(), now);
            let Some(task) = self.tasks.get_mut(&id) else {
                continue;
            };
            let why = match placement {
                Some(Placement::Wait { why, .. }) => why,
                // There is room, but a heavier job before it keeps that.
                _ => Waiting::Busy {
                    platform: task.job.platform.clone(),
                },
            };
            let position = positions.entry(task.job.platform.clone()).or_insert(0);
            *position += 1;
            let news = At::Waiting(Some((*position, why.clone())));
            if task.at != news {
                task.at = news;
                decisions.push(Decision::StillWaiting {
                    job: id,
                    position: *position,
                    why,
                });
            }
        }
    }
}
