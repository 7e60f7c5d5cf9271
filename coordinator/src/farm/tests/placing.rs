//! Which worker gets a job, by what workers say of themselves over the protocol.

use buildyard_model::{Digest, LayerId, Mark};
use buildyard_proto::v1::{self as proto, from_worker};
use buildyard_scheduler::{Input, WantedNetworks};

use super::super::JobEvent;
use super::parts::{Fake, Setup, Submitted, quick, register, request};

const AMD64: &str = "linux/amd64";

fn mark(name: &str) -> Mark {
    LayerId(Digest::of(name)).into()
}

fn holding(name: &str, layers: &[&str]) -> proto::Register {
    let added = layers.iter().map(|layer| mark(layer).0).collect();
    proto::Register {
        slots: 8,
        holdings: Some(proto::Holdings {
            added,
            removed: Vec::new(),
        }),
        ..register(name, &[AMD64])
    }
}

/// A job that reads so many bytes of these layers.
fn reading(setup: &Setup, id: &str, inputs: &[(&str, u64)]) -> Submitted {
    let mut job = request(id, AMD64);
    let inputs = inputs.iter().map(|(name, bytes)| Input {
        mark: mark(name),
        bytes: *bytes,
    });
    job.inputs = inputs.collect();
    setup.submit_request(job)
}

async fn place(mut job: Submitted) -> String {
    match job.next().await {
        JobEvent::Assigned { worker, .. } => worker.as_str().to_owned(),
        JobEvent::Refused { reason } => reason,
        other => panic!("not placed: {other:?}"),
    }
}

/// Says what came to and went from the disk; returns once the farm has taken it up.
async fn report(setup: &Setup, worker: &Fake, added: &[&str], removed: &[&str]) {
    let marks = |names: &[&str]| names.iter().map(|name| mark(name).0).collect();
    let holdings = Some(proto::Holdings {
        added: marks(added),
        removed: marks(removed),
    });
    let beat = proto::Heartbeat {
        claims: Vec::new(),
        holdings,
    };
    // Messages are taken up in their order: when the second one has had its effect, so has the first.
    let mut last = setup.submit("last", AMD64);
    assert!(matches!(last.next().await, JobEvent::Assigned { .. }));
    worker.send(from_worker::Event::Heartbeat(beat)).await;
    worker.job_ended("last").await;
    assert!(matches!(last.next().await, JobEvent::Ended));
}

#[tokio::test]
async fn a_job_goes_where_most_of_what_it_reads_lies() {
    let setup = Setup::new(quick()).await;
    let one = setup.join(holding("one", &["deps"])).await;
    let two = setup.join(holding("two", &["base", "other"])).await;
    let reads = [("base", 1000), ("deps", 10)];
    assert_eq!(place(reading(&setup, "a", &reads)).await, "two");
    assert_eq!(place(reading(&setup, "b", &[("deps", 10)])).await, "one");
    report(&setup, &one, &["base"], &[]).await;
    assert_eq!(place(reading(&setup, "c", &reads)).await, "one");
    report(&setup, &one, &[], &["base", "deps"]).await;
    assert_eq!(place(reading(&setup, "d", &reads)).await, "two");
    drop(two);
}

#[tokio::test]
async fn a_step_on_its_machines_network_goes_where_that_is_allowed_or_is_refused_with_the_list() {
    let setup = Setup::new(quick()).await;
    let networked = |name: &str, networks: &[&str]| proto::Register {
        networks: networks.iter().map(|name| (*name).to_owned()).collect(),
        ..register(name, &[AMD64])
    };
    let submit = |id: &str| {
        let mut job = request(id, AMD64);
        job.networks = WantedNetworks {
            default: true,
            host: true,
        };
        setup.submit_request(job)
    };
    let _a = setup.join(networked("a", &["none", "private"])).await;
    let _b = setup.join(networked("b", &["none"])).await;
    let refused = place(submit("x")).await;
    for part in ["a (private, none), b (none)", "--allow-host-network"] {
        assert!(refused.contains(part), "{refused}");
    }
    let _c = setup.join(networked("c", &["none", "host"])).await;
    assert_eq!(place(submit("y")).await, "c");
    assert_eq!(place(submit("z")).await, "c");
}
