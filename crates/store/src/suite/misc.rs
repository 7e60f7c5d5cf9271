//! Settings and known workers.

use buildyard_model::WorkerId;

use super::{at, platform};
use crate::{Store, WorkerRecord};

pub(crate) async fn settings_are_decided_once(store: &dyn Store) {
    let (amd64, arm64) = (platform("linux/amd64"), platform("linux/arm64"));
    assert_eq!(store.build_platform(&amd64).await.expect("read"), amd64);
    assert_eq!(
        store.build_platform(&arm64).await.expect("read"),
        amd64,
        "the first default stays"
    );
    store.set_build_platform(&arm64).await.expect("changed");
    assert_eq!(store.build_platform(&amd64).await.expect("read"), arm64);
    assert_eq!(store.farm_id("one").await.expect("read"), "one");
    assert_eq!(store.farm_id("two").await.expect("read"), "one");
    assert!(store.schema_version().await.expect("read") >= 1);
}

pub(crate) async fn workers_are_known_while_away(store: &dyn Store) {
    let mut worker = WorkerRecord {
        id: WorkerId::new("b"),
        native: vec![platform("linux/arm64"), platform("linux/arm/v7")],
        emulated: vec![],
        slots: 4,
        seen: at(0),
    };
    store.put_worker(&worker).await.expect("recorded");
    let other = WorkerRecord {
        id: WorkerId::new("a"),
        emulated: vec![platform("linux/s390x")],
        ..worker.clone()
    };
    store.put_worker(&other).await.expect("recorded");
    (worker.slots, worker.seen) = (8, at(10));
    store.put_worker(&worker).await.expect("recorded");
    assert_eq!(
        store.workers().await.expect("listed"),
        [other, worker.clone()]
    );
    assert_eq!(store.forget_workers(at(5)).await.expect("forgotten"), 1);
    assert_eq!(store.workers().await.expect("listed"), [worker]);
}
