//! Which of several workers gets a job: as tables.

use buildyard_model::{Digest, LayerId, Mark, WorkerId};

use super::*;
use crate::{HeldChange, Input};

fn mark(name: &str) -> Mark {
    LayerId(Digest::of(name)).into()
}

fn reading(id: &str, inputs: &[(&str, u64)]) -> Job {
    let inputs = inputs.iter().map(|(name, bytes)| Input {
        mark: mark(name),
        bytes: *bytes,
    });
    Job {
        inputs: inputs.collect(),
        ..job(id, Some(AMD))
    }
}

fn holding(id: &str, slots: u32, holds: &[&str]) -> Event {
    Event::WorkerJoined {
        worker: info(id, &[AMD], &[], slots),
        running: Vec::new(),
        holds: holds.iter().map(|name| mark(name)).collect(),
    }
}

/// A worker: name, slots, jobs that it has, what it holds.
type Having = (&'static str, u32, u32, &'static [&'static str]);

/// The one that gets a job that reads `base` (100 bytes) and
/// `deps` (10).
fn chosen(workers: &[Having]) -> String {
    let mut farm = Farm::crowded();
    // One after the other, so that each gets its jobs.
    for (name, slots, jobs, holds) in workers {
        farm.on(holding(name, *slots, holds));
        for number in 0..*jobs {
            let id = format!("{name}.{number}");
            let other = |(other, ..): &&Having| other != name;
            let avoid = workers
                .iter()
                .filter(other)
                .map(|(other, ..)| WorkerId::new(*other));
            let job = Job {
                avoid: avoid.collect(),
                ..job(&id, Some(AMD))
            };
            assert_eq!(farm.on(Event::JobQueued(job)), [format!("{id} on {name}")]);
        }
    }
    let said = farm.on(Event::JobQueued(reading(
        "x.1",
        &[("base", 100), ("deps", 10)],
    )));
    said[0]
        .strip_prefix("x.1 on ")
        .expect("it is placed")
        .to_owned()
}

#[test]
fn a_free_slot_comes_before_bytes_and_bytes_before_most_slots() {
    let table: [(&[Having], &str); 8] = [
        // Nobody holds anything: the emptiest, then by name.
        (&[("a", 2, 0, &[]), ("b", 4, 0, &[])], "b"),
        (&[("a", 2, 0, &[]), ("b", 2, 0, &[])], "a"),
        // Most bytes, not most layers.
        (
            &[("a", 2, 0, &["deps", "else"]), ("b", 2, 0, &["base"])],
            "b",
        ),
        (
            &[("a", 2, 0, &["base"]), ("b", 2, 0, &["base", "deps"])],
            "b",
        ),
        // Bytes weigh more than further free slots,
        (&[("a", 9, 0, &[]), ("b", 2, 1, &["deps"])], "b"),
        // less than a free one.
        (&[("a", 1, 0, &[]), ("b", 2, 2, &["base", "deps"])], "a"),
        // All are full: bytes again, then who has least to do.
        (&[("a", 1, 1, &[]), ("b", 2, 5, &["base"])], "b"),
        (&[("a", 1, 2, &[]), ("b", 4, 6, &[])], "b"),
    ];
    for (workers, expected) in table {
        assert_eq!(chosen(workers), expected, "{workers:?}");
    }
}

#[test]
fn what_a_worker_holds_changes() {
    let mut farm = Farm::crowded();
    farm.on(holding("a", 4, &[]));
    farm.on(holding("b", 4, &["base"]));
    let place = |farm: &mut Farm, id: &str| farm.on(Event::JobQueued(reading(id, &[("base", 9)])));
    let change = |worker: &str, added: &[&str], removed: &[&str]| Event::WorkerHolds {
        worker: WorkerId::new(worker),
        change: HeldChange {
            added: added.iter().map(|name| mark(name)).collect(),
            removed: removed.iter().map(|name| mark(name)).collect(),
        },
    };
    assert_eq!(place(&mut farm, "x.1"), ["x.1 on b"]);
    farm.on(change("a", &["base"], &[]));
    farm.on(change("b", &["other"], &["base"]));
    farm.on(change("nobody", &["base"], &[]));
    assert_eq!(place(&mut farm, "x.2"), ["x.2 on a"]);
    // One that joins again says anew what it holds.
    farm.on(lost("a"));
    farm.on(holding("a", 4, &[]));
    farm.on(change("b", &["base"], &["other"]));
    assert_eq!(place(&mut farm, "x.4"), ["x.4 on b"]);
}

#[test]
fn only_so_much_of_what_a_worker_holds_is_remembered() {
    let mut farm = Farm::with(Config {
        max_held: 1,
        ..Config::default()
    });
    farm.on(holding("b", 4, &["base", "deps"]));
    farm.on(holding("a", 4, &["other"]));
    let change = HeldChange {
        added: vec![mark("deps")],
        removed: Vec::new(),
    };
    farm.on(Event::WorkerHolds {
        worker: WorkerId::new("b"),
        change,
    });
    let job = reading("x.1", &[("deps", 9)]);
    assert_eq!(farm.on(Event::JobQueued(job)), ["x.1 on a"]);
}

#[test]
fn native_comes_before_everything_that_an_emulator_holds() {
    let mut farm = Farm::crowded();
    farm.on(Event::WorkerJoined {
        worker: info("a", &[ARM], &[AMD], 9),
        running: Vec::new(),
        holds: vec![mark("base")],
    });
    farm.on(holding("b", 1, &[]));
    for number in 0..3 {
        let id = format!("x.{number}");
        let job = reading(&id, &[("base", 100)]);
        assert_eq!(farm.on(Event::JobQueued(job)), [format!("{id} on b")]);
    }
}

fn networked(id: &str, private: bool, host: bool) -> Event {
    Event::WorkerJoined {
        worker: WorkerInfo {
            networks: Networks { private, host },
            ..info(id, &[AMD], &[], 2)
        },
        running: Vec::new(),
        holds: Vec::new(),
    }
}

fn wanting(id: &str, default: bool, host: bool) -> Event {
    Event::JobQueued(Job {
        networks: WantedNetworks { default, host },
        ..job(id, Some(AMD))
    })
}

#[test]
fn steps_on_the_machines_network_go_where_that_is_allowed() {
    let mut farm = Farm::crowded();
    farm.on(networked("a", true, false));
    assert_eq!(
        farm.on(wanting("x.1", true, true)),
        [
            "no x.1: no worker for linux/amd64 lets steps use its machine's network; networks are a (private, none); \
              start a worker with --allow-host-network"
        ]
    );
    farm.on(networked("b", false, true));
    for number in 2..6 {
        let id = format!("x.{number}");
        assert_eq!(farm.on(wanting(&id, true, true)), [format!("{id} on b")]);
    }
    // It is known and away: waited for, not refused.
    farm.on(lost("b"));
    assert_eq!(
        farm.on(wanting("x.7", true, true))[..],
        ["x.7 waits 5 away"]
    );
}

#[test]
fn a_worker_with_a_network_is_preferred_and_one_without_will_do() {
    let mut farm = Farm::crowded();
    farm.on(networked("a", false, false));
    assert_eq!(farm.on(wanting("x.1", true, false)), ["x.1 on a"]);
    farm.on(networked("b", true, false));
    for number in 2..6 {
        let id = format!("x.{number}");
        assert_eq!(farm.on(wanting(&id, true, false)), [format!("{id} on b")]);
    }
    assert_eq!(farm.on(wanting("x.6", false, false)), ["x.6 on a"]);
}
