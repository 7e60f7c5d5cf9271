//! The suite, on files and in memory, and what is SQLite's own.

use std::collections::BTreeMap;
use std::time::Duration;

use buildyard_model::{BuildId, Digest, LayerId, Platform, Scope, StepDigest, StepKey, WorkerId};
use proptest::prelude::*;

use crate::suite::store_suite;
use crate::{
    BuildOutcome, BuildRecord, Builds, Claims, Encodings, Finished, History, Layers, Results,
    Settings, SqliteStore, UnixMillis, Usage, Workers,
};

mod in_memory {
    use super::*;

    async fn fresh() -> Box<SqliteStore> {
        Box::new(SqliteStore::in_memory().await.expect("opened"))
    }

    store_suite!(super::fresh());
}

mod on_disk {
    use super::*;

    struct OnDisk {
        store: SqliteStore,
        _dir: tempfile::TempDir,
    }

    impl std::ops::Deref for OnDisk {
        type Target = SqliteStore;

        fn deref(&self) -> &SqliteStore {
            &self.store
        }
    }

    async fn fresh() -> OnDisk {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = SqliteStore::open(&dir.path().join("farm.db"))
            .await
            .expect("opened");
        OnDisk { store, _dir: dir }
    }

    store_suite!(super::fresh());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn claims_follow_their_model(messages in crate::suite::claims_model::messages()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            let store = SqliteStore::in_memory().await.expect("opened");
            crate::suite::claims_model::follows_the_model(&store, &messages).await;
        });
    }
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("farm.db");
    let amd64: Platform = "linux/amd64".parse().expect("a platform");
    let store = SqliteStore::open(&path).await.expect("opened");
    store.build_platform(&amd64).await.expect("stored");
    store.start_build(&build("b")).await.expect("started");
    store.close().await;
    let store = SqliteStore::open(&path).await.expect("opened again");
    let other: Platform = "linux/arm64".parse().expect("a platform");
    assert_eq!(store.build_platform(&other).await.expect("read"), amd64);
    assert_eq!(
        store.build(&BuildId::new("b")).await.expect("read"),
        Some(build("b"))
    );
}

fn build(id: &str) -> BuildRecord {
    BuildRecord {
        id: BuildId::new(id),
        scope: Scope::new("main"),
        name: String::new(),
        frontend: String::new(),
        target: String::new(),
        platforms: Vec::new(),
        exports: Vec::new(),
        started: UnixMillis(1),
        outcome: BuildOutcome::Running,
        completed: None,
        error: None,
        response: BTreeMap::new(),
        steps: 0,
        steps_cached: 0,
        steps_emulated: 0,
    }
}

/// Counts the transactions of one operation.
macro_rules! once {
    ($store:ident.$operation:ident($($argument:expr),*)) => {{
        let before = $store.transactions();
        $store.$operation($($argument),*).await.expect(stringify!($operation));
        assert_eq!($store.transactions() - before, 1, stringify!($operation));
    }};
}

#[tokio::test]
async fn each_operation_is_one_transaction() {
    let store = SqliteStore::in_memory().await.expect("opened");
    let (now, ttl, scope) = (UnixMillis(1), Duration::from_secs(1), Scope::new("main"));
    let (digest, worker, id) = (Digest::of("x"), WorkerId::new("w"), BuildId::new("b"));
    let (key, layer, step) = (StepKey(digest), LayerId(digest), StepDigest(digest));
    let claim = crate::ClaimKey::shared(key, scope.clone());
    let by = crate::ClaimedBy {
        worker: worker.clone(),
        job: buildyard_model::JobId::new("j"),
        build: id.clone(),
        step,
    };
    let held = crate::HeldClaim {
        claim: claim.clone(),
        generation: crate::Generation(1),
    };
    let end = Finished {
        outcome: BuildOutcome::Failed,
        completed: now,
        error: None,
        response: BTreeMap::new(),
    };
    let platform: Platform = "linux/amd64".parse().expect("a platform");
    once!(store.lookup(&[key], &scope, now));
    once!(store.forget(key, &scope));
    once!(store.forget_layer(layer));
    once!(store.forget_unpublished_of(&worker));
    once!(store.forget_unused(now, 1));
    once!(store.claim_step(&claim, &by, now, ttl));
    once!(store.complete(&held, &crate::suite::result("w", &["x"]), now));
    once!(store.renew(&worker, std::slice::from_ref(&held), now, ttl));
    once!(store.release(&held));
    once!(store.expire(now, now));
    once!(store.release_worker(&worker, now));
    once!(store.put_layers(&[
        crate::suite::layers::made("x", "w", now),
        crate::suite::layers::pulled("p", now)
    ]));
    once!(store.add_source(
        layer,
        &crate::Source {
            registry: "r".into(),
            repository: "p".into()
        },
        now
    ));
    once!(store.layers(&[layer]));
    once!(store.set_published(layer, digest));
    once!(store.remove_layers(&[layer]));
    once!(store.encodings(&[]));
    once!(store.layers_by_diff_id(&[digest]));
    once!(store.start_build(&build("b")));
    once!(store.record_steps(&id, &[]));
    once!(store.finish_build(&id, &end));
    once!(store.abandon_running(now));
    once!(store.remove_builds(now, 1));
    once!(store.list_builds(1, None));
    once!(store.build(&id));
    once!(store.steps(&id));
    once!(store.log(&id, step));
    once!(store.record_usage(&[], now));
    once!(store.touch(&[], now));
    once!(store.total_bytes());
    once!(store.oldest(1));
    once!(store.remove_usage(&[]));
    once!(store.build_platform(&platform));
    once!(store.set_build_platform(&platform));
    once!(store.farm_id("f"));
    once!(store.schema_version());
    let record = crate::WorkerRecord {
        id: worker,
        native: vec![platform],
        emulated: vec![],
        slots: 1,
        seen: now,
    };
    once!(store.put_worker(&record));
    once!(store.workers());
    once!(store.forget_workers(now));
}
