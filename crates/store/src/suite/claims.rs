//! Claims: at most one is valid, and lost messages do no harm.

use std::collections::HashSet;
use std::time::Duration;

use buildyard_model::{BuildId, JobId, WorkerId};

use super::{TTL, at, by, claim_of, held, lookup, only_for, record, result};
use crate::{Claim, ClaimKey, ClaimedBy, Completion, Generation, Store, UnixMillis};

async fn ask(store: &dyn Store, claim: &ClaimKey, worker: &str, now: UnixMillis) -> Claim {
    store
        .claim_step(claim, &by(worker), now, TTL)
        .await
        .expect("asked")
}

async fn take(store: &dyn Store, claim: &ClaimKey, worker: &str, now: UnixMillis) -> Generation {
    match ask(store, claim, worker, now).await {
        Claim::Run { generation } => generation,
        other => panic!("{worker} got {other:?}"),
    }
}

pub(crate) async fn a_claim_is_given_once(store: &dyn Store) {
    let claim = claim_of("a");
    let generation = take(store, &claim, "one", at(0)).await;
    let expected = Claim::Held {
        by: by("one"),
        generation,
        until: at(30),
    };
    assert_eq!(ask(store, &claim, "two", at(1)).await, expected);
    let other = take(store, &claim_of("b"), "two", at(1)).await;
    assert!(other > generation);
    let outcome = result("one", &["x"]);
    let completion = store
        .complete(&held(&claim, generation), &outcome, &[], at(2))
        .await
        .expect("completed");
    assert_eq!(completion, Completion::Accepted);
    assert_eq!(
        ask(store, &claim, "two", at(3)).await,
        Claim::Done(Box::new(outcome.clone()))
    );
    assert_eq!(lookup(store, "a", at(3)).await, Some(outcome));
}

pub(crate) async fn a_lapsed_claim_is_given_away(store: &dyn Store) {
    let claim = claim_of("a");
    let first = take(store, &claim, "one", at(0)).await;
    let second = take(store, &claim, "two", at(30)).await;
    assert!(second > first, "{second:?} after {first:?}");
    let worker = WorkerId::new("one");
    let lost = store
        .renew(&worker, &[held(&claim, first)], at(31), TTL)
        .await
        .expect("renewed");
    assert_eq!(lost, [held(&claim, first)]);
    let late = store
        .complete(&held(&claim, first), &result("one", &["x"]), &[], at(31))
        .await
        .expect("asked");
    assert_eq!(late, Completion::Stale);
    assert!(!store.release(&held(&claim, first)).await.expect("asked"));
    assert_eq!(lookup(store, "a", at(31)).await, None);
    let right = store
        .complete(&held(&claim, second), &result("two", &["y"]), &[], at(32))
        .await
        .expect("completed");
    assert_eq!(right, Completion::Accepted);
    assert_eq!(
        lookup(store, "a", at(33)).await,
        Some(result("two", &["y"]))
    );
}

pub(crate) async fn silence_loses_nothing_by_itself(store: &dyn Store) {
    let claim = claim_of("a");
    let generation = take(store, &claim, "one", at(0)).await;
    let lapsed = store.expire(at(30), at(-1000)).await.expect("expired");
    assert_eq!(lapsed.len(), 1);
    assert_eq!(
        (&lapsed[0].held, &lapsed[0].by),
        (&held(&claim, generation), &by("one"))
    );
    assert!(
        store
            .expire(at(31), at(-1000))
            .await
            .expect("expired")
            .is_empty(),
        "it is reported once"
    );
    let worker = WorkerId::new("one");
    let lost = store
        .renew(&worker, &[held(&claim, generation)], at(40), TTL)
        .await
        .expect("renewed");
    assert!(lost.is_empty(), "nobody had asked for it: {lost:?}");
    assert!(matches!(
        ask(store, &claim, "two", at(69)).await,
        Claim::Held { .. }
    ));
    assert_eq!(
        store
            .expire(at(70), at(-1000))
            .await
            .expect("expired")
            .len(),
        1,
        "it may lapse again"
    );
    // A worker that is away for good is forgotten in the end.
    store.expire(at(2000), at(1000)).await.expect("expired");
    let lost = store
        .renew(&worker, &[held(&claim, generation)], at(2001), TTL)
        .await
        .expect("renewed");
    assert_eq!(lost, [held(&claim, generation)]);
}

pub(crate) async fn a_lost_answer_may_be_asked_for_again(store: &dyn Store) {
    let claim = claim_of("a");
    let generation = take(store, &claim, "one", at(0)).await;
    assert_eq!(
        take(store, &claim, "one", at(5)).await,
        generation,
        "the same claim again"
    );
    assert!(
        matches!(ask(store, &claim, "two", at(34)).await, Claim::Held { .. }),
        "and prolonged"
    );
    let other_job = ClaimedBy {
        job: JobId::new("another"),
        ..by("one")
    };
    let answer = store
        .claim_step(&claim, &other_job, at(6), TTL)
        .await
        .expect("asked");
    assert!(
        matches!(answer, Claim::Held { .. }),
        "another job of the worker waits: {answer:?}"
    );
    let outcome = result("one", &["x"]);
    for _ in 0..2 {
        let completion = store
            .complete(&held(&claim, generation), &outcome, &[], at(7))
            .await
            .expect("completed");
        assert_eq!(completion, Completion::Accepted);
    }
}

pub(crate) async fn only_the_holder_completes(store: &dyn Store) {
    let claim = claim_of("a");
    let generation = take(store, &claim, "one", at(0)).await;
    let stranger = store
        .complete(
            &held(&claim, generation),
            &result("two", &["x"]),
            &[],
            at(1),
        )
        .await
        .expect("asked");
    assert_eq!(stranger, Completion::Stale);
    let elsewhere = held(&claim_of("b"), generation);
    assert_eq!(
        store
            .complete(&elsewhere, &result("one", &["x"]), &[], at(1))
            .await
            .expect("asked"),
        Completion::Stale
    );
    let lost = store
        .renew(
            &WorkerId::new("two"),
            &[held(&claim, generation)],
            at(1),
            TTL,
        )
        .await
        .expect("asked");
    assert_eq!(lost.len(), 1);
    assert_eq!(lookup(store, "a", at(1)).await, None);
    assert!(
        matches!(ask(store, &claim, "two", at(1)).await, Claim::Held { .. }),
        "the holder still holds it"
    );
}

pub(crate) async fn released_means_free(store: &dyn Store) {
    let claim = claim_of("a");
    let first = take(store, &claim, "one", at(0)).await;
    assert!(store.release(&held(&claim, first)).await.expect("released"));
    assert!(
        !store.release(&held(&claim, first)).await.expect("released"),
        "only once"
    );
    let second = take(store, &claim, "two", at(0)).await;
    assert!(second > first);
}

pub(crate) async fn no_cache_runs_once_per_build(store: &dyn Store) {
    record(store, &claim_of("a"), &result("one", &["old"]), at(0)).await;
    let anew = only_for("a", "B");
    let generation = take(store, &anew, "two", at(1)).await;
    assert!(
        matches!(ask(store, &anew, "three", at(2)).await, Claim::Held { .. }),
        "its other platforms wait"
    );
    take(store, &only_for("a", "C"), "four", at(2)).await;
    assert!(
        matches!(
            ask(store, &claim_of("a"), "five", at(2)).await,
            Claim::Done(_)
        ),
        "others use what is there"
    );
    store
        .complete(
            &held(&anew, generation),
            &result("two", &["new"]),
            &[],
            at(3),
        )
        .await
        .expect("completed");
    assert_eq!(
        lookup(store, "a", at(4)).await,
        Some(result("two", &["new"])),
        "it replaces the shared one"
    );
    record(
        store,
        &only_for("a", "D"),
        &result("six", &["newest"]),
        at(5),
    )
    .await;
    let again = ask(store, &anew, "three", at(6)).await;
    assert_eq!(
        again,
        Claim::Done(Box::new(result("two", &["new"]))),
        "build B sees what it ran itself"
    );
    store
        .finish_build(&BuildId::new("B"), &super::builds::success(at(7)))
        .await
        .expect("finished");
    take(store, &anew, "three", at(8)).await;
    assert_eq!(
        lookup(store, "a", at(8)).await,
        Some(result("six", &["newest"]))
    );
}

pub(crate) async fn a_lost_worker_lapses(store: &dyn Store) {
    let (a, b) = (claim_of("a"), claim_of("b"));
    let first = take(store, &a, "one", at(0)).await;
    let second = take(store, &b, "one", at(0)).await;
    take(store, &claim_of("c"), "two", at(0)).await;
    let worker = WorkerId::new("one");
    let lapsed = store
        .release_worker(&worker, at(1))
        .await
        .expect("released");
    let lapsed: HashSet<_> = lapsed.into_iter().map(|lapsed| lapsed.held).collect();
    assert_eq!(lapsed, HashSet::from([held(&a, first), held(&b, second)]));
    assert!(
        store
            .release_worker(&worker, at(1))
            .await
            .expect("released")
            .is_empty()
    );
    take(store, &a, "two", at(1)).await;
    let shown = [held(&a, first), held(&b, second)];
    let lost = store
        .renew(&worker, &shown, at(2), TTL)
        .await
        .expect("renewed");
    assert_eq!(lost, [held(&a, first)], "what nobody took goes on");
}

/// Sixty-four workers ask at once: one runs, and once it is done the rest have its result.
pub(crate) async fn many_ask_at_once(store: &dyn Store) {
    let claim = claim_of("a");
    let names: Vec<String> = (0..64).map(|number| format!("w{number}")).collect();
    let answers = futures_all(names.iter().map(|name| ask(store, &claim, name, at(0)))).await;
    let running: Vec<_> = answers
        .iter()
        .zip(&names)
        .filter(|(answer, _)| matches!(answer, Claim::Run { .. }))
        .collect();
    let [(Claim::Run { generation }, worker)] = running[..] else {
        panic!("{running:?}")
    };
    store
        .complete(
            &held(&claim, *generation),
            &result(worker, &["x"]),
            &[],
            at(1),
        )
        .await
        .expect("completed");
    let answers = futures_all(names.iter().map(|name| ask(store, &claim, name, at(2)))).await;
    assert!(
        answers
            .iter()
            .all(|answer| matches!(answer, Claim::Done(_)))
    );
    let ttl = Duration::from_secs(1);
    assert!(
        store
            .renew(&WorkerId::new("w0"), &[], at(3), ttl)
            .await
            .expect("renewed")
            .is_empty()
    );
}

/// Polls all of them together.
async fn futures_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut pending: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|cx| {
        let mut ready = true;
        for (future, output) in &mut pending {
            if output.is_none() {
                match future.as_mut().poll(cx) {
                    std::task::Poll::Ready(value) => *output = Some(value),
                    std::task::Poll::Pending => ready = false,
                }
            }
        }
        if ready {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    pending
        .into_iter()
        .filter_map(|(_, output)| output)
        .collect()
}
