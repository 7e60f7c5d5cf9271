//! What the scheduler is told and what it says.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use buildyard_model::{BuildId, JobId, Mark, Platform, WorkerId};

/// A worker as it registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerInfo {
    /// Its name.
    pub id: WorkerId,
    /// What it runs natively. Compared as they are: a worker lists every variant that it runs.
    pub native: Vec<Platform>,
    /// What it runs under QEMU.
    pub emulated: Vec<Platform>,
    /// How many steps it runs at once. With 0 it takes no jobs, as if it were away. See [`Config::jobs_per_slot`].
    ///
    /// [`Config::jobs_per_slot`]: crate::Config::jobs_per_slot
    pub slots: u32,
    /// Its networks.
    pub networks: Networks,
}

/// What steps reach from a worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Networks {
    /// A private network with a way out, which is what steps have by default.
    pub private: bool,
    /// The machine's own, for steps that ask for it.
    pub host: bool,
}

/// What the steps of a job need of a worker's networks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WantedNetworks {
    /// Some step has the default network. Where there is none it runs without, which many steps never notice.
    pub default: bool,
    /// Some step asks for the machine's own, and is refused where that is not allowed.
    pub host: bool,
}

/// A part of what a job reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Input {
    /// The layer, or the flat file.
    pub mark: Mark,
    /// How much it is.
    pub bytes: u64,
}

/// What came to or went from a worker's disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeldChange {
    /// What is there now and was not.
    pub added: Vec<Mark>,
    /// What is not there any more.
    pub removed: Vec<Mark>,
}

/// A job that wants a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// The build it belongs to: builds take turns.
    pub build: BuildId,
    /// What its steps execute on; `None` if they execute nothing, or do not care.
    pub platform: Option<Platform>,
    /// How many slots it takes: at least 1, and at most all that its worker has.
    pub weight: u32,
    /// What it reads.
    pub inputs: Vec<Input>,
    /// The networks of its steps.
    pub networks: WantedNetworks,
    /// Workers that could not do it before: others are preferred.
    pub avoid: BTreeSet<WorkerId>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A worker from before the coordinator's start: it is known and away.
    WorkerKnown(WorkerInfo),
    /// A worker connected, or connected again.
    WorkerJoined {
        /// What it is.
        worker: WorkerInfo,
        /// The jobs that it is still running: those that wait again go on there, others it must stop.
        running: Vec<JobId>,
        /// All that lies on its disk.
        holds: Vec<Mark>,
    },
    /// What lies on a worker's disk changed.
    WorkerHolds {
        /// The worker.
        worker: WorkerId,
        /// How.
        change: HeldChange,
    },
    /// A connected worker changed what it offers. What it runs goes on.
    WorkerUpdated(WorkerInfo),
    /// A worker is out of reach.
    WorkerLost(WorkerId),
    /// A worker finishes what it has and takes nothing new.
    WorkerDraining(WorkerId),
    /// A worker will not come back: nobody waits for it any more.
    WorkerForgotten(WorkerId),
    /// A job wants a worker.
    JobQueued(Job),
    /// A worker has ended a job, whatever came of it; or has stopped it as told.
    JobFinished {
        /// The job.
        job: JobId,
        /// Who reports it.
        worker: WorkerId,
    },
    /// A worker gives a job back that it could not begin or go on with: it goes to another, if there is one.
    JobReturned {
        /// The job.
        job: JobId,
        /// Who gives it back.
        worker: WorkerId,
    },
    /// Nobody wants a job any more.
    JobCancelled(JobId),
    /// Time has passed.
    Tick,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Send the job to the worker.
    Assign {
        /// The job.
        job: JobId,
        /// Where it runs.
        worker: WorkerId,
        /// It runs under QEMU there.
        emulated: bool,
    },
    /// The worker, back again, goes on with a job that it had kept running.
    Resume {
        /// The job.
        job: JobId,
        /// Where it runs.
        worker: WorkerId,
        /// It runs under QEMU there.
        emulated: bool,
    },
    /// The coordinator runs the job itself; the scheduler has done with it.
    RunHere {
        /// The job, which has no platform.
        job: JobId,
    },
    /// The worker must stop the job and report it finished; its slots are taken until then.
    Stop {
        /// The job.
        job: JobId,
        /// Who runs it.
        worker: WorkerId,
    },
    /// The job cannot run; the scheduler has done with it.
    Refuse {
        /// The job.
        job: JobId,
        /// Why; `Display` is for people.
        reason: Refusal,
    },
    /// The job waits. Said when it begins to, and when something about it changes.
    StillWaiting {
        /// The job.
        job: JobId,
        /// Its place among those that wait for the same platform, from 1.
        position: usize,
        /// For what; `Display` is for people.
        why: Waiting,
    },
}

/// What a job waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waiting {
    /// Everybody who can run it is busy.
    Busy {
        /// Its platform.
        platform: Option<Platform>,
    },
    /// Those who can run it are away, or those who can run it natively are.
    Away {
        /// Its platform.
        platform: Option<Platform>,
        /// Who is away.
        workers: Vec<WorkerId>,
        /// How long it waits for them; then it runs emulated or is refused.
        until: Instant,
    },
}

/// Why a job cannot run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody that the farm knows can run it.
    NobodyCan {
        /// Its platform; `None`: there is no worker at all.
        platform: Option<Platform>,
        /// What connected workers run natively.
        native: Vec<Platform>,
        /// What they run only under QEMU.
        emulated: Vec<Platform>,
    },
    /// Steps want their machine's network, and nobody who runs their platform allows that.
    NoHostNetwork {
        /// Its platform.
        platform: Option<Platform>,
        /// Who runs the platform, and the networks that steps have there.
        workers: Vec<(WorkerId, Networks)>,
    },
    /// Those who can run it stayed away.
    StayedAway {
        /// Its platform.
        platform: Option<Platform>,
        /// Who is away.
        workers: Vec<WorkerId>,
        /// How long it waited.
        waited: Duration,
        /// What connected workers run natively.
        native: Vec<Platform>,
        /// What they run only under QEMU.
        emulated: Vec<Platform>,
    },
    /// It lost its worker too often.
    LostTooOften {
        /// How often.
        times: u32,
    },
    /// Too many jobs wait.
    QueueFull {
        /// How many may.
        limit: usize,
    },
}
