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

/// Records the result of a step of this name, with the last of its layers as a new one.
async fn record_step(store: &SqliteStore, name: &str, layers: &[&str]) {
    let claim = crate::ClaimKey::shared(StepKey(Digest::of(name)), Scope::new("main"));
    let by = crate::ClaimedBy {
        worker: WorkerId::new("w"),
        job: buildyard_model::JobId::new("j"),
        build: BuildId::new("b"),
        step: StepDigest(Digest::of(name)),
    };
    let ttl = Duration::from_secs(1);
    let claimed = store.claim_step(&claim, &by, UnixMillis(1), ttl).await;
    let crate::Claim::Run { generation } = claimed.expect("claimed") else {
        panic!("{name} is to be run")
    };
    let held = crate::HeldClaim { claim, generation };
    let mut result = crate::suite::result("w", layers);
    result.name = "a step".to_owned();
    let top = layers.last().expect("a layer");
    let made = [crate::suite::layers::made(top, "w", UnixMillis(1))];
    let completed = store.complete(&held, &result, &made, UnixMillis(1));
    assert_eq!(
        completed.await.expect("completed"),
        crate::Completion::Accepted
    );
}

/// How many rows the tables have that a step's result goes into, and how long the one column is that names its layers.
async fn stored(store: &SqliteStore) -> Vec<i64> {
    let mut tx = store.db.read().await.expect("begun");
    let mut counts = Vec::new();
    for query in [
        "SELECT count(*) FROM results",
        "SELECT count(*) FROM chains",
        "SELECT count(*) FROM result_chains",
        "SELECT count(*) FROM layers",
        "SELECT count(*) FROM layer_flats",
        "SELECT count(*) FROM claims",
        "SELECT coalesce(sum(length(outputs)), 0) FROM results",
    ] {
        let count: i64 = sqlx::query_scalar(query)
            .fetch_one(&mut *tx)
            .await
            .expect(query);
        counts.push(count);
    }
    counts
}

#[tokio::test]
async fn a_step_at_the_end_of_a_chain_stores_as_much_as_one_at_its_start() {
    let store = SqliteStore::in_memory().await.expect("opened");
    let names: Vec<String> = (0..50).map(|number| format!("layer {number}")).collect();
    let layers: Vec<&str> = names.iter().map(String::as_str).collect();
    for length in 1..=layers.len() {
        let (before, begun) = (stored(&store).await, store.transactions());
        record_step(&store, &format!("step {length}"), &layers[..length]).await;
        assert_eq!(
            store.transactions() - begun,
            2,
            "the claim, and the result with its layer"
        );
        let after = stored(&store).await;
        let more: Vec<i64> = after.iter().zip(before).map(|(a, b)| a - b).collect();
        // A result, its chain as a layer on another chain, the layer with two flat files; the claim is gone. The outputs of
        // this step are the id of one chain, none, and an empty one: ["…64 digits…",null,""].
        assert_eq!(more, [1, 1, 1, 1, 2, 0, 76], "step {length}");
    }
}

#[tokio::test]
async fn chains_that_nothing_builds_on_any_more_go_with_the_last_result() {
    let store = SqliteStore::in_memory().await.expect("opened");
    let now = UnixMillis(100);
    record_step(&store, "a", &["x", "y", "z"]).await;
    record_step(&store, "b", &["x", "y"]).await;
    record_step(&store, "c", &["x", "v"]).await;
    assert_eq!(stored(&store).await[1], 4);
    let key = |name: &str| StepKey(Digest::of(name));
    let scope = Scope::new("main");
    store.forget(key("b"), &scope).await.expect("forgotten");
    store.forget_unused(UnixMillis(0), 10).await.expect("done");
    assert_eq!(stored(&store).await[1], 4, "another one builds on it");
    store.forget(key("a"), &scope).await.expect("forgotten");
    store.forget_unused(UnixMillis(0), 10).await.expect("done");
    assert_eq!(stored(&store).await[1], 2, "x, and v on x");
    assert_eq!(store.forget_unused(now, 10).await.expect("forgotten"), 1);
    assert_eq!(stored(&store).await[1], 0);
}

#[tokio::test]
async fn results_of_an_earlier_version_are_taken_over() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("farm.db");
    let store = SqliteStore::open(&path).await.expect("opened");
    record_step(&store, "a", &["x", "y"]).await;
    record_step(&store, "b", &["x", "y", "z"]).await;
    let (key, scope) = (|name| StepKey(Digest::of(name)), Scope::new("main"));
    let keys = [key("a"), key("b")];
    let expected = store.lookup(&keys, &scope, UnixMillis(1)).await;
    let expected = expected.expect("found");
    // As they were recorded, and as the migration leaves them.
    let mut tx = store.db.write().await.expect("begun");
    for (name, result) in ["a", "b"].into_iter().zip(&expected) {
        let outputs = result.as_ref().map(|result| &result.outputs);
        sqlx::query("UPDATE results SET outputs = ?1 WHERE key = ?2")
            .bind(serde_json::to_string(&outputs).expect("a text"))
            .bind(&key(name).0.as_bytes()[..])
            .execute(&mut *tx)
            .await
            .expect("written");
    }
    for query in [
        "INSERT INTO results_to_convert (result) SELECT id FROM results",
        "DELETE FROM result_chains",
        "DELETE FROM loose_chains",
        "DELETE FROM chains",
    ] {
        sqlx::query(query).execute(&mut *tx).await.expect(query);
    }
    super::db::commit(tx).await.expect("committed");
    store.close().await;
    let store = SqliteStore::open(&path).await.expect("opened again");
    let found = store.lookup(&keys, &scope, UnixMillis(1)).await;
    assert_eq!(found.expect("found"), expected);
    assert_eq!(stored(&store).await[1..3], [3, 2]);
    let layer = LayerId(Digest::of("z"));
    assert_eq!(store.forget_layer(layer).await.expect("forgotten"), 1);
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
        steps: Vec::new(),
    };
    let platform: Platform = "linux/amd64".parse().expect("a platform");
    once!(store.lookup(&[key], &scope, now));
    once!(store.forget(key, &scope));
    once!(store.forget_layer(layer));
    once!(store.forget_unpublished_of(&worker));
    once!(store.forget_unused(now, 1));
    once!(store.claim_step(&claim, &by, now, ttl));
    once!(store.complete(&held, &crate::suite::result("w", &["x"]), &[], now));
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
