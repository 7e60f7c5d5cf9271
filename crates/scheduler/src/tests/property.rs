//! A farm at random: workers come, go and forget, jobs are cancelled, messages are late or doubled.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use buildyard_model::{BuildId, JobId, Platform, WorkerId};
use proptest::prelude::*;

use crate::{Config, Decision, Event, Job, Networks, State, WantedNetworks, WorkerInfo, decide};

const PLATFORMS: [&str; 3] = ["linux/amd64", "linux/arm64", "linux/s390x"];

/// One thing that happens. Numbers choose among names, platforms and what is under way.
#[derive(Debug, Clone)]
enum Happening {
    Join {
        worker: u8,
        native: u8,
        emulated: u8,
        slots: u32,
        shows: bool,
        host: bool,
    },
    Lose {
        worker: u8,
    },
    Drain {
        worker: u8,
    },
    Forget {
        worker: u8,
    },
    Queue {
        build: u8,
        platform: u8,
        weight: u32,
    },
    Cancel {
        any: usize,
    },
    /// A worker reports the end of something it runs or ran.
    Finish {
        any: usize,
    },
    Return {
        any: usize,
    },
    Wait {
        seconds: u64,
    },
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let one = prop_oneof![
        4 => (0u8..4, 1u8..8, 0u8..8, 1u32..4, any::<bool>(), any::<bool>()).prop_map(|(worker, native, emulated, slots, shows, host)| {
            Happening::Join { worker, native, emulated, slots, shows, host }
        }),
        2 => (0u8..4).prop_map(|worker| Happening::Lose { worker }),
        1 => (0u8..4).prop_map(|worker| Happening::Drain { worker }),
        1 => (0u8..4).prop_map(|worker| Happening::Forget { worker }),
        8 => (0u8..4, 0u8..4, 0u32..6).prop_map(|(build, platform, weight)| {
            Happening::Queue { build, platform, weight }
        }),
        2 => any::<usize>().prop_map(|any| Happening::Cancel { any }),
        6 => any::<usize>().prop_map(|any| Happening::Finish { any }),
        1 => any::<usize>().prop_map(|any| Happening::Return { any }),
        2 => (0u64..700).prop_map(|seconds| Happening::Wait { seconds }),
    ];
    proptest::collection::vec(one, 1..120)
}

fn some(bits: u8) -> Vec<Platform> {
    let chosen = (0..)
        .zip(PLATFORMS)
        .filter(|(bit, _)| bits & (1 << bit) != 0);
    chosen
        .map(|(_, text)| text.parse().expect("a platform"))
        .collect()
}

/// What the test believes, from events and decisions alone.
struct World {
    state: State,
    now: Instant,
    /// Connected workers and whether they take jobs.
    workers: BTreeMap<WorkerId, (WorkerInfo, bool)>,
    /// What workers run, also cut off ones.
    on_worker: HashMap<WorkerId, HashSet<JobId>>,
    jobs: HashMap<JobId, Job>,
    /// Jobs that are not done, and where they run for the farm.
    open: BTreeMap<JobId, Option<WorkerId>>,
    cancelled: HashSet<JobId>,
    reports: Vec<(JobId, WorkerId)>,
}

impl World {
    fn new() -> Self {
        Self {
            state: State::new(Config {
                coordinator_runs: false,
                ..Config::default()
            }),
            now: Instant::now(),
            workers: BTreeMap::new(),
            on_worker: HashMap::new(),
            jobs: HashMap::new(),
            open: BTreeMap::new(),
            cancelled: HashSet::new(),
            reports: Vec::new(),
        }
    }

    fn happen(&mut self, happening: &Happening) {
        let name = |number: &u8| WorkerId::new(format!("w{number}"));
        match happening {
            Happening::Join {
                worker,
                native,
                emulated,
                slots,
                shows,
                host,
            } => {
                let info = WorkerInfo {
                    id: name(worker),
                    native: some(*native),
                    emulated: some(*emulated),
                    slots: *slots,
                    networks: Networks {
                        private: true,
                        host: *host,
                    },
                };
                self.join(info, *shows);
            }
            Happening::Lose { worker } => self.lose(&name(worker), Event::WorkerLost(name(worker))),
            Happening::Forget { worker } => {
                self.lose(&name(worker), Event::WorkerForgotten(name(worker)))
            }
            Happening::Drain { worker } => {
                if let Some((_, takes)) = self.workers.get_mut(&name(worker)) {
                    *takes = false;
                }
                self.decide(Event::WorkerDraining(name(worker)));
            }
            Happening::Queue {
                build,
                platform,
                weight,
            } => self.queue(*build, *platform, *weight),
            Happening::Cancel { any } => self.cancel(*any),
            Happening::Finish { any } => self.report(*any, false),
            Happening::Return { any } => self.report(*any, true),
            Happening::Wait { seconds } => {
                self.now += Duration::from_secs(*seconds);
                self.decide(Event::Tick);
            }
        }
    }

    fn join(&mut self, worker: WorkerInfo, shows: bool) {
        let runs = self.on_worker.entry(worker.id.clone()).or_default();
        if !shows {
            runs.clear();
        }
        let mut running: Vec<JobId> = runs.iter().cloned().collect();
        running.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        for (job, place) in &mut self.open {
            if place.as_ref() == Some(&worker.id) && !running.contains(job) {
                *place = None;
            }
        }
        self.drop_cancelled();
        self.workers
            .insert(worker.id.clone(), (worker.clone(), true));
        self.decide(Event::WorkerJoined {
            worker,
            running,
            holds: Vec::new(),
        });
    }

    fn lose(&mut self, id: &WorkerId, event: Event) {
        self.workers.remove(id);
        for place in self
            .open
            .values_mut()
            .filter(|place| place.as_ref() == Some(id))
        {
            *place = None;
        }
        self.drop_cancelled();
        self.decide(event);
    }

    fn queue(&mut self, build: u8, platform: u8, weight: u32) {
        let id = JobId::new(format!("j{}", self.jobs.len()));
        let platform = PLATFORMS
            .get(usize::from(platform))
            .map(|text| text.parse().expect("a platform"));
        let build = BuildId::new(format!("b{build}"));
        let job = Job {
            id: id.clone(),
            build,
            platform,
            weight,
            inputs: Vec::new(),
            networks: WantedNetworks {
                default: false,
                host: weight == 5,
            },
            avoid: BTreeSet::new(),
        };
        self.jobs.insert(id.clone(), job.clone());
        self.open.insert(id, None);
        self.decide(Event::JobQueued(job.clone()));
        self.decide(Event::JobQueued(Job {
            build: BuildId::new("doubled"),
            ..job.clone()
        }));
    }

    fn cancel(&mut self, any: usize) {
        let Some(id) = self.open.keys().nth(any % self.open.len().max(1)).cloned() else {
            return;
        };
        self.cancelled.insert(id.clone());
        self.drop_cancelled();
        self.decide(Event::JobCancelled(id));
    }

    /// A cancelled job that nobody runs is done.
    fn drop_cancelled(&mut self) {
        self.open
            .retain(|job, place| place.is_some() || !self.cancelled.contains(job));
    }

    /// Some worker, perhaps one that was cut off, ends or gives back a job; sometimes it says so twice.
    fn report(&mut self, any: usize, gives_back: bool) {
        if self.reports.is_empty() {
            return;
        }
        let (job, worker) = self.reports[any % self.reports.len()].clone();
        if let Some(runs) = self.on_worker.get_mut(&worker) {
            runs.remove(&job);
        }
        let is_there = self.open.get(&job) == Some(&Some(worker.clone()));
        if is_there && gives_back {
            self.open.insert(job.clone(), None);
            self.drop_cancelled();
        } else if is_there {
            self.open.remove(&job);
        }
        self.decide(match gives_back {
            true => Event::JobReturned { job, worker },
            false => Event::JobFinished { job, worker },
        });
    }

    fn decide(&mut self, event: Event) {
        // A doubled job must not come alive again once it is refused: it is not sent then.
        if let Event::JobQueued(job) = &event
            && !self.open.contains_key(&job.id)
        {
            return;
        }
        for decision in decide(&mut self.state, event, self.now) {
            self.follow(decision);
        }
        let waiting = self.open.values().filter(|place| place.is_none()).count();
        assert_eq!(self.state.waiting(), waiting);
    }

    fn follow(&mut self, decision: Decision) {
        match decision {
            Decision::Assign {
                job,
                worker,
                emulated,
            }
            | Decision::Resume {
                job,
                worker,
                emulated,
            } => {
                self.check_start(&job, &worker, emulated);
                self.open.insert(job.clone(), Some(worker.clone()));
                self.on_worker
                    .entry(worker.clone())
                    .or_default()
                    .insert(job.clone());
                self.reports.push((job, worker));
            }
            Decision::Refuse { job, .. } => {
                let place = self.open.remove(&job);
                assert_eq!(place, Some(None), "only what waits is refused");
            }
            Decision::Stop { job, worker } => {
                let runs = self
                    .on_worker
                    .get(&worker)
                    .is_some_and(|runs| runs.contains(&job));
                assert!(runs, "{worker} does not run {job}");
            }
            Decision::StillWaiting { job, position, .. } => {
                assert_eq!(self.open.get(&job), Some(&None));
                assert!(position >= 1);
            }
            Decision::RunHere { .. } => panic!("the coordinator runs nothing here"),
        }
    }

    fn check_start(&self, id: &JobId, worker: &WorkerId, emulated: bool) {
        assert_eq!(
            self.open.get(id),
            Some(&None),
            "{id} runs already, or is done"
        );
        assert!(!self.cancelled.contains(id), "nobody wants {id}");
        let (info, takes) = self.workers.get(worker).expect("it is connected");
        assert!(takes, "{worker} takes nothing");
        if let Some(platform) = &self.jobs[id].platform {
            assert_eq!(!emulated, info.native.contains(platform));
            assert!(!emulated || info.emulated.contains(platform));
        }
        assert!(info.networks.host || !self.jobs[id].networks.host);
        // How much each takes there is the scheduler's own business; one slot each is the least.
        let running = self
            .open
            .values()
            .filter(|place| place.as_ref() == Some(worker))
            .count();
        assert!(running < info.slots as usize, "{worker} has no slot left");
    }

    /// From here on everything goes well: workers for everything, and each job ends.
    fn end_well(&mut self) {
        for number in 0..4 {
            let info = WorkerInfo {
                id: WorkerId::new(format!("w{number}")),
                native: some(7),
                emulated: vec![],
                slots: 2,
                networks: Networks {
                    private: true,
                    host: true,
                },
            };
            self.join(info, true);
        }
        for _ in 0..1000 {
            let Some((job, worker)) = self
                .open
                .iter()
                .find_map(|(job, place)| Some((job, place.as_ref()?)))
            else {
                break;
            };
            let report = (job.clone(), worker.clone());
            self.reports = vec![report];
            self.report(0, false);
        }
        assert!(self.open.is_empty(), "never ended: {:?}", self.open);
        assert_eq!(self.state.slots().0, 0, "slots are still taken");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_job_is_in_two_places_and_every_job_ends(happenings in happenings()) {
        let mut world = World::new();
        for happening in &happenings {
            world.happen(happening);
        }
        world.end_well();
    }
}
