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
        steps: Vec::new(),
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
    let mut done = step("z");
    (done.completed, done.error) = (Some(at(2)), Some("exit code: 1".into()));
    let logged = StepRecord {
        log: Some(StepLog::Text(b"not \xff UTF-8".to_vec())),
        ..done.clone()
    };
    let response = BTreeMap::from([("containerimage.digest".to_owned(), "sha256:00".to_owned())]);
    let end = Finished {
        error: Some("why".into()),
        outcome: BuildOutcome::Failed,
        response,
        steps: vec![logged, bare("a")],
        ..success(at(9))
    };
    assert!(store.finish_build(&id, &end).await.expect("finished"));
    assert_eq!(store.steps(&id).await.expect("read"), [done, bare("a")]);
    let log = store.log(&id, step("z").step).await.expect("read");
    assert_eq!(log, Some(StepLog::Text(b"not \xff UTF-8".to_vec())));
    assert_eq!(store.log(&id, bare("a").step).await.expect("read"), None);
    let expected = BuildRecord {
        outcome: BuildOutcome::Failed,
        completed: Some(at(9)),
        error: end.error.clone(),
        response: end.response.clone(),
        steps: 2,
        steps_cached: 1,
        steps_emulated: 1,
        ..build("b", at(0))
    };
    assert_eq!(store.build(&id).await.expect("read"), Some(expected));
    let nobody = BuildId::new("none");
    assert!(!store.finish_build(&nobody, &end).await.expect("asked"));
}

pub(crate) async fn all_steps_of_a_large_build_are_kept(store: &dyn Store) {
    let id = start(store, "b", at(0)).await;
    let log = StepLog::Text(vec![b'x'; 100_000]);
    let steps = (0..50).map(|number| StepRecord {
        log: Some(log.clone()),
        ..step(&format!("step {number}"))
    });
    let end = Finished {
        steps: steps.collect(),
        ..success(at(1))
    };
    assert!(store.finish_build(&id, &end).await.expect("finished"));
    let kept = store.steps(&id).await.expect("read");
    let names: Vec<_> = kept.iter().map(|step| step.name.clone()).collect();
    let expected: Vec<_> = (0..50).map(|number| format!("step {number}")).collect();
    assert_eq!(names, expected);
    for step in &kept {
        let kept = store.log(&id, step.step).await.expect("read");
        assert_eq!(kept, Some(log.clone()), "{}", step.name);
    }
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
    let late = Finished {
        steps: vec![step("late")],
        ..success(at(2))
    };
    assert!(!store.finish_build(&id, &late).await.expect("asked"));
    assert!(store.steps(&id).await.expect("read").is_empty());
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
    let of_new = StepRecord {
        log: log("shared"),
        ..step("s")
    };
    record(store, &claim_of("a"), &result("one", &["x"]), at(0)).await;
    for (id, steps) in [(&old, steps.to_vec()), (&new, vec![of_new])] {
        let end = Finished {
            steps,
            ..success(at(6))
        };
        store.finish_build(id, &end).await.expect("finished");
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
    let end = Finished {
        steps: vec![long],
        ..success(at(1))
    };
    store.finish_build(&id, &end).await.expect("finished");
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
