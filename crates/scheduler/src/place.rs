//! Where one job can go, as the farm is now. Decides nothing about the order of jobs.

use std::collections::{BTreeSet, HashSet};
use std::time::Instant;

use buildyard_model::{Platform, WorkerId};

use crate::state::Task;
use crate::worker::{How, Presence, Worker};
use crate::{Config, Refusal, Waiting};

/// What can be done about a job.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// It can run there.
    On { worker: WorkerId, emulated: bool },
    /// The coordinator runs it.
    Here,
    /// Nothing yet. A heavy job keeps `keep` from taking other jobs.
    Wait {
        why: Waiting,
        keep: Option<WorkerId>,
    },
    /// Nothing, ever.
    Never(Refusal),
}

/// The farm, as one job is placed.
pub(crate) struct Place<'a> {
    pub(crate) config: &'a Config,
    pub(crate) workers: Vec<&'a Worker>,
    /// Workers that a heavier job waits for.
    pub(crate) kept: &'a HashSet<WorkerId>,
    pub(crate) now: Instant,
}

impl Place<'_> {
    pub(crate) fn place(&self, task: &Task) -> Placement {
        match &task.job.platform {
            Some(_) => self.with_platform(task),
            None => self.anywhere(task),
        }
    }

    fn anywhere(&self, task: &Task) -> Placement {
        let workers = self.who_runs(task, How::Native);
        if let Some(worker) = self.best_free(&workers, task) {
            return Placement::On {
                worker,
                emulated: false,
            };
        }
        match presence(&workers) {
            Presence::Connected => self.busy(&workers, task),
            _ if self.config.coordinator_runs => Placement::Here,
            Presence::Away => self.away(&workers, task),
            Presence::Unknown => self.nobody(task),
        }
    }

    fn with_platform(&self, task: &Task) -> Placement {
        let natives = self.who_runs(task, How::Native);
        let emulators = self.who_runs(task, How::Emulated);
        if let Some(worker) = self.best_free(&natives, task) {
            return Placement::On {
                worker,
                emulated: false,
            };
        }
        let patience = match presence(&natives) {
            Presence::Connected => self.config.busy_grace,
            Presence::Away => self.config.away_grace,
            Presence::Unknown => std::time::Duration::ZERO,
        };
        let may_emulate = self.waited(task) >= patience;
        if may_emulate && let Some(worker) = self.best_free(&emulators, task) {
            return Placement::On {
                worker,
                emulated: true,
            };
        }
        match (presence(&natives), presence(&emulators)) {
            (Presence::Connected, _) => self.busy(&natives, task),
            (Presence::Away, Presence::Connected) if !may_emulate => self.away(&natives, task),
            (_, Presence::Connected) => self.busy(&emulators, task),
            (Presence::Unknown, Presence::Unknown) => self.nobody(task),
            _ => self.away(&[natives, emulators].concat(), task),
        }
    }

    fn who_runs(&self, task: &Task, how: How) -> Vec<&Worker> {
        let workers = self.workers.iter().copied();
        workers
            .filter(|worker| worker.runs(&task.job) == Some(how))
            .collect()
    }

    fn waited(&self, task: &Task) -> std::time::Duration {
        self.now.saturating_duration_since(task.since)
    }

    /// The best of those that have room for the job.
    fn best_free(&self, workers: &[&Worker], task: &Task) -> Option<WorkerId> {
        let free = workers.iter().filter(|worker| {
            worker.presence() == Presence::Connected
                && !self.kept.contains(&worker.info.id)
                && worker.free() >= worker.weight_of(&task.job)
        });
        let best = free.min_by_key(|worker| {
            let id = &worker.info.id;
            (
                worker.fitness(&task.job, task.avoid.contains(id)),
                id.clone(),
            )
        });
        best.map(|worker| worker.info.id.clone())
    }

    /// A job of one slot needs no worker kept: the next slot that is free is the first it could have.
    fn busy(&self, workers: &[&Worker], task: &Task) -> Placement {
        let connected = workers
            .iter()
            .filter(|worker| worker.presence() == Presence::Connected);
        let heavy = connected.filter(|worker| worker.weight_of(&task.job) > 1);
        let nearest = heavy
            .filter(|worker| !self.kept.contains(&worker.info.id))
            .min_by_key(|worker| {
                (
                    worker.weight_of(&task.job).saturating_sub(worker.free()),
                    &worker.info.id,
                )
            });
        let keep = nearest.map(|worker| worker.info.id.clone());
        Placement::Wait {
            why: Waiting::Busy {
                platform: task.job.platform.clone(),
            },
            keep,
        }
    }

    /// Those who could are not connected, or not for long.
    fn away(&self, workers: &[&Worker], task: &Task) -> Placement {
        let platform = task.job.platform.clone();
        let workers = workers
            .iter()
            .map(|worker| worker.info.id.clone())
            .collect();
        let waited = self.waited(task);
        if waited < self.config.away_grace {
            let until = task.since + self.config.away_grace;
            return Placement::Wait {
                why: Waiting::Away {
                    platform,
                    workers,
                    until,
                },
                keep: None,
            };
        }
        let (native, emulated) = self.offer();
        Placement::Never(Refusal::StayedAway {
            platform,
            workers,
            waited,
            native,
            emulated,
        })
    }

    fn nobody(&self, task: &Task) -> Placement {
        // Nobody can, for whatever reason. Where it is the network alone, that is what to say.
        let able = self
            .workers
            .iter()
            .filter(|worker| worker.platform_of(&task.job).is_some());
        let workers: Vec<_> = able
            .map(|worker| (worker.info.id.clone(), worker.info.networks))
            .collect();
        if task.job.networks.host && !workers.is_empty() {
            return Placement::Never(Refusal::NoHostNetwork {
                platform: task.job.platform.clone(),
                workers,
            });
        }
        let (native, emulated) = self.offer();
        Placement::Never(Refusal::NobodyCan {
            platform: task.job.platform.clone(),
            native,
            emulated,
        })
    }

    /// What connected workers run natively, and what only under emulation.
    fn offer(&self) -> (Vec<Platform>, Vec<Platform>) {
        let connected = self
            .workers
            .iter()
            .filter(|worker| worker.presence() == Presence::Connected);
        let native: BTreeSet<&Platform> = connected
            .clone()
            .flat_map(|worker| &worker.info.native)
            .collect();
        let emulated: BTreeSet<&Platform> =
            connected.flat_map(|worker| &worker.info.emulated).collect();
        let only_emulated = emulated
            .difference(&native)
            .map(|platform| (*platform).clone())
            .collect();
        (native.into_iter().cloned().collect(), only_emulated)
    }
}

/// The best that can be said of any of them.
fn presence(workers: &[&Worker]) -> Presence {
    workers
        .iter()
        .map(|worker| worker.presence())
        .max()
        .unwrap_or(Presence::Unknown)
}
