//! The rules one by one, as short stories: events in, decisions out.

mod choice;
mod property;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use buildyard_model::{BuildId, JobId, Platform, WorkerId};

use crate::{
    Config, Decision, Event, Job, Networks, State, Waiting, WantedNetworks, WorkerInfo, decide,
};

const AMD: &str = "linux/amd64";
const ARM: &str = "linux/arm64";

/// A farm and its clock, in seconds.
struct Farm {
    state: State,
    begin: Instant,
    seconds: u64,
}

impl Farm {
    fn new() -> Self {
        Self::with(Config::default())
    }

    /// Workers take more jobs than they have slots, as in a farm whose slots count steps.
    fn crowded() -> Self {
        Self::with(Config {
            jobs_per_slot: 100,
            ..Config::default()
        })
    }

    fn with(config: Config) -> Self {
        Self {
            state: State::new(config),
            begin: Instant::now(),
            seconds: 0,
        }
    }

    /// What follows from the event, as short texts in their order.
    fn on(&mut self, event: Event) -> Vec<String> {
        let now = self.begin + Duration::from_secs(self.seconds);
        decide(&mut self.state, event, now)
            .iter()
            .map(text)
            .collect()
    }

    fn after(&mut self, seconds: u64) -> Vec<String> {
        self.seconds += seconds;
        self.on(Event::Tick)
    }
}

fn text(decision: &Decision) -> String {
    let emulated = |emulated: &bool| if *emulated { " emulated" } else { "" };
    match decision {
        Decision::Assign {
            job,
            worker,
            emulated: e,
        } => format!("{job} on {worker}{}", emulated(e)),
        Decision::Resume {
            job,
            worker,
            emulated: e,
        } => format!("{job} still on {worker}{}", emulated(e)),
        Decision::RunHere { job } => format!("{job} here"),
        Decision::Stop { job, worker } => format!("stop {job} on {worker}"),
        Decision::Refuse { job, reason } => format!("no {job}: {reason}"),
        Decision::StillWaiting {
            job,
            position,
            why: Waiting::Busy { .. },
        } => format!("{job} waits {position} busy"),
        Decision::StillWaiting {
            job,
            position,
            why: Waiting::Away { .. },
        } => format!("{job} waits {position} away"),
    }
}

fn platforms(list: &[&str]) -> Vec<Platform> {
    list.iter()
        .map(|text| text.parse().expect("a platform"))
        .collect()
}

fn info(id: &str, native: &[&str], emulated: &[&str], slots: u32) -> WorkerInfo {
    WorkerInfo {
        id: WorkerId::new(id),
        native: platforms(native),
        emulated: platforms(emulated),
        slots,
        networks: Networks {
            private: true,
            host: false,
        },
    }
}

fn joined(id: &str, native: &[&str], emulated: &[&str], slots: u32) -> Event {
    Event::WorkerJoined {
        worker: info(id, native, emulated, slots),
        running: Vec::new(),
        holds: Vec::new(),
    }
}

fn back(id: &str, native: &[&str], slots: u32, running: &[&str]) -> Event {
    let running = running.iter().map(|job| JobId::new(*job)).collect();
    Event::WorkerJoined {
        worker: info(id, native, &[], slots),
        running,
        holds: Vec::new(),
    }
}

/// A job named `build.number`.
fn job(id: &str, platform: Option<&str>) -> Job {
    let build = id.split('.').next().expect("a part before the dot");
    Job {
        id: JobId::new(id),
        build: BuildId::new(build),
        platform: platform.map(|text| text.parse().expect("a platform")),
        weight: 1,
        inputs: Vec::new(),
        networks: WantedNetworks::default(),
        avoid: BTreeSet::new(),
    }
}

fn queued(id: &str, platform: &str) -> Event {
    Event::JobQueued(job(id, Some(platform)))
}

fn heavy(id: &str, platform: &str, weight: u32) -> Event {
    Event::JobQueued(Job {
        weight,
        ..job(id, Some(platform))
    })
}

fn finished(id: &str, worker: &str) -> Event {
    Event::JobFinished {
        job: JobId::new(id),
        worker: WorkerId::new(worker),
    }
}

fn lost(worker: &str) -> Event {
    Event::WorkerLost(WorkerId::new(worker))
}

fn nothing() -> Vec<String> {
    Vec::new()
}

#[test]
fn native_comes_first_and_emulation_only_where_nobody_is_native() {
    let mut farm = Farm::new();
    farm.on(joined("amd", &[AMD], &[ARM], 9));
    assert_eq!(farm.on(queued("a.1", ARM)), ["a.1 on amd emulated"]);
    farm.on(joined("arm", &[ARM], &[AMD], 1));
    assert_eq!(farm.on(queued("a.2", ARM)), ["a.2 on arm"]);
    assert_eq!(farm.on(queued("a.3", AMD)), ["a.3 on amd"]);
    assert_eq!(
        farm.on(queued("a.4", ARM)),
        ["a.4 waits 1 busy"],
        "a busy native worker is waited for"
    );
    assert_eq!(farm.after(599), nothing());
    assert_eq!(farm.after(1), ["a.4 on amd emulated"], "but not for ever");
    assert_eq!(farm.on(queued("a.5", ARM)), ["a.5 waits 1 busy"]);
    assert_eq!(farm.on(finished("a.2", "arm")), ["a.5 on arm"]);
}

#[test]
fn a_known_native_worker_is_waited_for_a_while() {
    let mut farm = Farm::new();
    farm.on(Event::WorkerKnown(info("arm", &[ARM], &[], 2)));
    farm.on(joined("amd", &[AMD], &[ARM], 2));
    assert_eq!(farm.on(queued("a.1", ARM)), ["a.1 waits 1 away"]);
    assert_eq!(farm.after(59), nothing());
    assert_eq!(farm.on(back("arm", &[ARM], 2, &[])), ["a.1 on arm"]);
    farm.on(lost("arm"));
    assert_eq!(
        farm.after(59),
        nothing(),
        "the wait begins anew with the loss"
    );
    assert_eq!(farm.after(1), ["a.1 on amd emulated"]);
}

#[test]
fn nobody_can_is_refused_at_once_with_what_the_farm_can() {
    let mut farm = Farm::new();
    let hint = "add a linux/s390x worker, or a worker with qemu-user-static";
    assert_eq!(
        farm.on(queued("a.1", "linux/s390x")),
        [format!(
            "no a.1: no worker can run linux/s390x; the farm runs nothing; {hint}"
        )]
    );
    farm.on(joined("amd", &[AMD], &[ARM, AMD], 1));
    assert_eq!(
        farm.on(queued("a.2", "linux/s390x")),
        [format!(
            "no a.2: no worker can run linux/s390x; the farm runs linux/amd64, linux/arm64 (emulated); {hint}"
        )]
    );
}

#[test]
fn those_who_stay_away_are_named() {
    let mut farm = Farm::new();
    farm.on(Event::WorkerKnown(info("arm", &[ARM], &[], 2)));
    assert_eq!(farm.on(queued("a.1", ARM)), ["a.1 waits 1 away"]);
    let wake = farm.state.next_wake(farm.begin).expect("patience ends");
    assert_eq!(wake - farm.begin, Duration::from_secs(60));
    assert_eq!(
        farm.after(60),
        [
            "no a.1: no worker came back for linux/arm64 within 60 s: arm is away; the farm runs nothing now"
        ]
    );
    farm.on(Event::WorkerForgotten(WorkerId::new("arm")));
    assert!(farm.on(queued("a.2", ARM))[0].starts_with("no a.2: no worker can run linux/arm64"));
    assert_eq!(farm.state.next_wake(farm.begin), None);
}

#[test]
fn without_a_platform_anybody_will_do() {
    let mut farm = Farm::new();
    assert_eq!(farm.on(Event::JobQueued(job("a.1", None))), ["a.1 here"]);
    farm.on(joined("amd", &[AMD], &[], 1));
    assert_eq!(farm.on(Event::JobQueued(job("a.2", None))), ["a.2 on amd"]);
    assert_eq!(
        farm.on(Event::JobQueued(job("a.3", None))),
        ["a.3 waits 1 busy"]
    );
    assert_eq!(farm.on(lost("amd")), ["a.2 here", "a.3 here"]);
    farm.state = State::new(Config {
        coordinator_runs: false,
        ..Config::default()
    });
    assert_eq!(
        farm.on(Event::JobQueued(job("a.4", None))),
        ["no a.4: no worker has joined the farm; start one with `buildyard worker --join URL`"]
    );
}

#[test]
fn builds_take_turns() {
    let mut farm = Farm::new();
    farm.on(joined("amd", &[AMD], &[], 1));
    assert_eq!(farm.on(queued("a.1", AMD)), ["a.1 on amd"]);
    for (id, position) in [("a.2", 1), ("a.3", 2), ("a.4", 3)] {
        assert_eq!(
            farm.on(queued(id, AMD)),
            [format!("{id} waits {position} busy")]
        );
    }
    assert_eq!(
        farm.on(queued("b.1", AMD)),
        ["b.1 waits 2 busy", "a.3 waits 3 busy", "a.4 waits 4 busy"],
        "the second build comes before the rest of the first"
    );
    let mut order = Vec::new();
    for running in ["a.1", "a.2", "b.1", "a.3"] {
        order.push(farm.on(finished(running, "amd"))[0].clone());
    }
    assert_eq!(
        order,
        ["a.2 on amd", "b.1 on amd", "a.3 on amd", "a.4 on amd"]
    );
}

#[test]
fn a_lost_worker_s_jobs_come_first_again() {
    let mut farm = Farm::new();
    farm.on(joined("one", &[AMD], &[], 2));
    farm.on(queued("a.1", AMD));
    farm.on(queued("b.1", AMD));
    farm.on(queued("c.1", AMD));
    assert_eq!(
        farm.on(lost("one")),
        ["a.1 waits 1 away", "b.1 waits 2 away", "c.1 waits 3 away"]
    );
    assert_eq!(
        farm.on(joined("two", &[AMD], &[], 2)),
        ["a.1 on two", "b.1 on two", "c.1 waits 1 busy"]
    );
    assert_eq!(farm.on(finished("a.1", "one")), nothing(), "too late");
    assert_eq!(farm.on(finished("a.1", "two")), ["c.1 on two"]);
}

#[test]
fn a_worker_that_comes_back_goes_on() {
    let mut farm = Farm::new();
    farm.on(joined("one", &[AMD], &[], 2));
    farm.on(queued("a.1", AMD));
    farm.on(queued("b.1", AMD));
    farm.on(lost("one"));
    farm.on(Event::JobCancelled(JobId::new("b.1")));
    assert_eq!(
        farm.on(back("one", &[AMD], 2, &["a.1", "b.1", "x.1"])),
        ["a.1 still on one", "stop b.1 on one", "stop x.1 on one"]
    );
    farm.on(lost("one"));
    assert_eq!(farm.on(joined("two", &[AMD], &[], 1)), ["a.1 on two"]);
    assert_eq!(
        farm.on(back("one", &[AMD], 2, &["a.1"])),
        ["stop a.1 on one"],
        "it was given away"
    );
    // Without having been seen lost: what it does not show any more is lost.
    assert_eq!(farm.on(back("two", &[AMD], 1, &[])), ["a.1 on one"]);
}

#[test]
fn a_job_that_takes_its_workers_down_is_refused_in_the_end() {
    let mut farm = Farm::new();
    farm.on(queued("a.0", AMD));
    farm.on(joined("one", &[AMD], &[], 1));
    assert_eq!(farm.on(queued("a.1", AMD)), ["a.1 on one"]);
    for _ in 0..4 {
        farm.on(lost("one"));
        assert_eq!(farm.on(joined("one", &[AMD], &[], 1)), ["a.1 on one"]);
    }
    let refused = farm.on(lost("one"));
    assert_eq!(
        refused,
        ["no a.1: its worker was lost 5 times; a step may take down the machine that runs it"]
    );
    // Connections that come and go while it runs are no losses.
    farm.on(joined("one", &[AMD], &[], 1));
    assert_eq!(farm.on(queued("a.2", AMD)), ["a.2 on one"]);
    for _ in 0..10 {
        farm.on(lost("one"));
        assert_eq!(
            farm.on(back("one", &[AMD], 1, &["a.2"])),
            ["a.2 still on one"]
        );
    }
}

#[test]
fn what_is_given_back_goes_elsewhere_if_it_can() {
    let mut farm = Farm::new();
    farm.on(joined("one", &[AMD], &[], 9));
    farm.on(queued("a.1", AMD));
    let give_back = |worker| Event::JobReturned {
        job: JobId::new("a.1"),
        worker: WorkerId::new(worker),
    };
    assert_eq!(
        farm.on(give_back("one")),
        ["a.1 on one"],
        "there is no other"
    );
    farm.on(joined("two", &[AMD], &[], 1));
    assert_eq!(farm.on(give_back("two")), nothing(), "it does not have it");
    assert_eq!(farm.on(give_back("one")), ["a.1 on two"]);
}

#[test]
fn a_cancelled_job_holds_its_slot_until_it_has_stopped() {
    let mut farm = Farm::new();
    farm.on(joined("one", &[AMD], &[], 1));
    farm.on(queued("a.1", AMD));
    farm.on(queued("b.1", AMD));
    assert_eq!(
        farm.on(Event::JobCancelled(JobId::new("a.1"))),
        ["stop a.1 on one"]
    );
    assert_eq!(farm.on(Event::JobCancelled(JobId::new("a.1"))), nothing());
    assert_eq!(farm.state.slots(), (1, 1));
    assert_eq!(farm.on(finished("a.1", "one")), ["b.1 on one"]);
    farm.on(queued("c.1", AMD));
    assert_eq!(farm.on(Event::JobCancelled(JobId::new("c.1"))), nothing());
    assert_eq!(farm.state.waiting(), 0);
    assert_eq!(farm.on(finished("b.1", "one")), nothing());
}

#[test]
fn a_draining_worker_ends_what_it_has() {
    let mut farm = Farm::new();
    farm.on(joined("one", &[AMD], &[], 2));
    farm.on(queued("a.1", AMD));
    assert_eq!(
        farm.on(Event::WorkerDraining(WorkerId::new("one"))),
        nothing()
    );
    assert_eq!(farm.on(queued("a.2", AMD)), ["a.2 waits 1 away"]);
    assert_eq!(farm.on(finished("a.1", "one")), nothing());
    assert_eq!(farm.on(joined("two", &[AMD], &[], 2)), ["a.2 on two"]);
}

#[test]
fn light_jobs_do_not_push_a_heavy_one_aside() {
    let mut farm = Farm::new();
    farm.on(joined("one", &[AMD], &[], 4));
    farm.on(queued("a.1", AMD));
    assert_eq!(
        farm.on(heavy("b.1", AMD, 99)),
        ["b.1 waits 1 busy"],
        "all of the worker is enough for it"
    );
    assert_eq!(farm.on(queued("c.1", AMD)), ["c.1 waits 2 busy"]);
    assert_eq!(
        farm.on(finished("a.1", "one")),
        ["b.1 on one", "c.1 waits 1 busy"]
    );
    assert_eq!(farm.on(finished("b.1", "one")), ["c.1 on one"]);
}

#[test]
fn the_queue_has_an_end() {
    let mut farm = Farm::new();
    farm.state = State::new(Config {
        max_waiting: 1,
        ..Config::default()
    });
    farm.on(joined("one", &[AMD], &[], 1));
    farm.on(queued("a.1", AMD));
    farm.on(queued("a.2", AMD));
    assert_eq!(
        farm.on(queued("a.2", AMD)),
        nothing(),
        "it is there already"
    );
    assert_eq!(
        farm.on(queued("a.3", AMD)),
        ["no a.3: 1 jobs are waiting already; add workers, or try again later"]
    );
}

#[test]
fn a_worker_that_learns_to_emulate_gets_what_waits() {
    let mut farm = Farm::new();
    farm.on(joined("one", &[AMD], &[], 1));
    farm.on(Event::WorkerKnown(info("arm", &[ARM], &[], 1)));
    farm.on(queued("a.1", ARM));
    farm.seconds = 60;
    assert_eq!(
        farm.on(Event::WorkerUpdated(info("one", &[AMD], &[ARM], 1))),
        ["a.1 on one emulated"]
    );
}
