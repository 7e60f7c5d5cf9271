//! The history.

use std::collections::BTreeMap;

use buildyard_model::{BuildId, Digest, Scope, StepDigest, WorkerId};

use super::{at, claim_of, lookup, only_for, platform, record, result};
use crate::{
    BuildOutcome, BuildRecord, Finished, MAX_LOG_TEXT, PageStart, StepLog, StepRecord, Store,
    StoreError, UnixMillis,
};

pub(crate) fn success(now: UnixMillis) -> Finished {
    Finished {
        outcome: BuildOutcome::Succeeded,
        completed: now,
        error: None,
        response: BTreeMap::new(),
    }
}

fn build(id: &str, now: UnixMillis) -> BuildRecord {
    BuildRecord {
        id: BuildId::new(id),
        scope: Scope::new("main"),
        name: "Dockerfile".into(),
        frontend: "dockerfile.v0".into(),
        target: "release".into(),
        platforms: vec![platform("linux/amd64"), platform("linux/arm/v7")],
        exports: vec!["image example/app:1".into()],
        started: now,
        outcome: BuildOutcome::Running,
        completed: None,
        error: None,
        response: BTreeMap::new(),
        steps: 0,
        steps_cached: 0,
        steps_emulated: 0,
    }
}

fn step(name: &str) -> StepRecord {
    StepRecord {
        step: StepDigest(Digest::of(name)),
        name: name.into(),
        platform: Some(platform("linux/arm64")),
        worker: Some(WorkerId::new("one")),
        cached: false,
        emulated: true,
        started: Some(at(1)),
        completed: None,
        error: None,
        log: None,
    }
}

fn bare(name: &str) -> StepRecord {
    let step = step(name);
    StepRecord {
        platform: None,
        worker: None,
        cached: true,
        emulated: false,
        started: None,
        ..step
    }
}

async fn start(store: &dyn Store, id: &str, now: UnixMillis) -> BuildId {
    store.start_build(&build(id, now)).await.expect("started");
    BuildId::new(id)
}

async fn outcome(store: &dyn Store, id: &BuildId) -> BuildOutcome {
    store.build(id).await.expect("read").expect("there").outcome
}

pub(crate) async fn history_keeps_what_it_is_told(store: &dyn Store) {
    let id = start(store, "b", at(0)).await;
    assert_eq!(
        store.build(&id).await.expect("read"),
        Some(build("b", at(0)))
    );
    let again = store
        .start_build(&build("b", at(1)))
        .await
        .expect_err("the id was used");
    assert!(matches!(again, StoreError::BuildExists(_)), "{again}");
    store
        .record_steps(&id, &[step("z"), bare("a")])
        .await
        .expect("recorded");
    let mut done = step("z");
    (done.completed, done.error) = (Some(at(2)), Some("exit code: 1".into()));
    let logged = StepRecord {
        log: Some(StepLog::Text(b"not \xff UTF-8".to_vec())),
        ..done.clone()
    };
    store.record_steps(&id, &[logged]).await.expect("recorded");
    store
        .record_steps(&id, &[done.clone()])
        .await
        .expect("recorded");
    assert_eq!(store.steps(&id).await.expect("read"), [done, bare("a")]);
    let log = store.log(&id, step("z").step).await.expect("read");
    assert_eq!(
        log,
        Some(StepLog::Text(b"not \xff UTF-8".to_vec())),
        "a log stays until there is another"
    );
    assert_eq!(store.log(&id, bare("a").step).await.expect("read"), None);
    let response = BTreeMap::from([("containerimage.digest".to_owned(), "sha256:00".to_owned())]);
    let end = Finished {
        error: Some("why".into()),
        outcome: BuildOutcome::Failed,
        response,
        ..success(at(9))
    };
    assert!(store.finish_build(&id, &end).await.expect("finished"));
    let expected = BuildRecord {
        outcome: BuildOutcome::Failed,
        completed: Some(at(9)),
        error: end.error,
        response: end.response,
        steps: 2,
        steps_cached: 1,
        steps_emulated: 1,
        ..build("b", at(0))
    };
    assert_eq!(store.build(&id).await.expect("read"), Some(expected));
    let missing = store
        .record_steps(&BuildId::new("none"), &[step("z")])
        .await
        .expect_err("no such build");
    assert!(matches!(missing, StoreError::NoSuchBuild(_)), "{missing}");
}

pub(crate) async fn a_page_follows_a_page(store: &dyn Store) {
    for (id, started) in [("a", 1), ("c", 2), ("b", 2), ("d", 3)] {
        start(store, id, at(started)).await;
    }
    let mut after = None;
    let mut seen = Vec::new();
    while let [build] = &store.list_builds(1, after.as_ref()).await.expect("listed")[..] {
        seen.push(build.id.to_string());
        after = Some(PageStart {
            started: build.started,
            id: build.id.clone(),
        });
    }
    assert_eq!(seen, ["d", "c", "b", "a"]);
    assert_eq!(store.list_builds(10, None).await.expect("listed").len(), 4);
}

pub(crate) async fn the_first_end_counts(store: &dyn Store) {
    let id = start(store, "b", at(0)).await;
    let cancelled = Finished {
        outcome: BuildOutcome::Cancelled,
        ..success(at(1))
    };
    assert!(store.finish_build(&id, &cancelled).await.expect("finished"));
    assert!(
        !store
            .finish_build(&id, &success(at(2)))
            .await
            .expect("asked")
    );
    assert_eq!(outcome(store, &id).await, BuildOutcome::Cancelled);
}

pub(crate) async fn a_crash_interrupts_what_ran(store: &dyn Store) {
    let (ended, running) = (
        start(store, "ended", at(0)).await,
        start(store, "running", at(0)).await,
    );
    store
        .finish_build(&ended, &success(at(1)))
        .await
        .expect("finished");
    record(
        store,
        &only_for("a", "running"),
        &result("one", &["x"]),
        at(1),
    )
    .await;
    assert_eq!(store.abandon_running(at(5)).await.expect("abandoned"), 1);
    assert_eq!(outcome(store, &ended).await, BuildOutcome::Succeeded);
    assert_eq!(outcome(store, &running).await, BuildOutcome::Interrupted);
    assert_eq!(store.abandon_running(at(6)).await.expect("abandoned"), 0);
    assert!(
        lookup(store, "a", at(6)).await.is_some(),
        "what was finished is kept"
    );
    record(
        store,
        &only_for("a", "running"),
        &result("two", &["y"]),
        at(7),
    )
    .await;
}

pub(crate) async fn old_builds_go_with_their_logs(store: &dyn Store) {
    let (old, new, running) = (
        start(store, "old", at(0)).await,
        start(store, "new", at(5)).await,
        start(store, "running", at(0)).await,
    );
    let log = |name: &str| Some(StepLog::Blob(Digest::of(name)));
    let steps = [
        ("only", "only"),
        ("shared", "shared"),
        ("result", "log"),
        ("again", "only"),
    ]
    .map(|(name, text)| StepRecord {
        log: log(text),
        ..step(name)
    });
    store.record_steps(&old, &steps).await.expect("recorded");
    store
        .record_steps(
            &new,
            &[StepRecord {
                log: log("shared"),
                ..step("s")
            }],
        )
        .await
        .expect("recorded");
    record(store, &claim_of("a"), &result("one", &["x"]), at(0)).await;
    for id in [&old, &new] {
        store
            .finish_build(id, &success(at(6)))
            .await
            .expect("finished");
    }
    let logs = store.remove_builds(at(5), 10).await.expect("removed");
    assert_eq!(
        logs,
        [Digest::of("only")],
        "the others are still referred to"
    );
    assert_eq!(store.build(&old).await.expect("read"), None);
    assert!(store.steps(&old).await.expect("read").is_empty());
    assert!(store.build(&new).await.expect("read").is_some());
    assert_eq!(
        outcome(store, &running).await,
        BuildOutcome::Running,
        "what runs is not old"
    );
}

pub(crate) async fn logs_are_capped(store: &dyn Store) {
    let id = start(store, "b", at(0)).await;
    let long = StepRecord {
        log: Some(StepLog::Text(vec![b'x'; MAX_LOG_TEXT + 1])),
        error: Some("ä".repeat(MAX_LOG_TEXT)),
        ..step("z")
    };
    store.record_steps(&id, &[long]).await.expect("recorded");
    let Some(StepLog::Text(kept)) = store.log(&id, step("z").step).await.expect("read") else {
        panic!("no text")
    };
    assert!(kept.len() <= MAX_LOG_TEXT, "{}", kept.len());
    let error = store.steps(&id).await.expect("read")[0]
        .error
        .clone()
        .expect("there");
    assert_eq!(error.len(), crate::TEXTS_CAP);
}
