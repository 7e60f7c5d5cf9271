//! The farm's promises about claims, losses and reconnecting, with scripted workers over the real protocol in memory.

mod closing;
mod parts;
mod placing;

use std::time::Duration;

use buildyard_model::JobId;
use buildyard_proto::v1::{claim_reply, from_worker, to_worker};

use super::JobEvent;
use parts::{Fake, Setup, failed, quick};

const AMD64: &str = "linux/amd64";

/// Two workers with a job each that asks for the same step.
async fn two_jobs(setup: &Setup) -> (Fake, Fake, parts::Submitted, parts::Submitted) {
    let mut one = setup.worker("one", &[AMD64]).await;
    let a = setup.submit("a", AMD64);
    one.started("a").await;
    // The second job goes to the worker with more free slots.
    let mut two = setup.worker("two", &[AMD64]).await;
    let b = setup.submit("b", AMD64);
    two.started("b").await;
    (one, two, a, b)
}

#[tokio::test]
async fn a_step_that_two_jobs_ask_for_runs_once() {
    let setup = Setup::new(quick()).await;
    let (one, two, mut a, mut b) = two_jobs(&setup).await;
    let claim = one.claim("a").await.run();
    let waiting = two.claim_later("b");
    setup.wait_watched().await;
    assert!(!one.complete(&claim).await.stale);
    let answer = waiting.await.expect("the task lives").answer();
    assert!(
        matches!(answer, claim_reply::Answer::Result(_)),
        "{answer:?}"
    );
    assert!(matches!(
        a.next_but_assigned().await,
        JobEvent::StepKnown { .. }
    ));
    assert!(matches!(
        b.next_but_assigned().await,
        JobEvent::StepKnown { .. }
    ));
}

#[tokio::test]
async fn a_failure_goes_to_those_who_wait_and_is_not_kept() {
    let setup = Setup::new(quick()).await;
    let (one, two, _a, _b) = two_jobs(&setup).await;
    let claim = one.claim("a").await.run();
    let waiting = two.claim_later("b");
    setup.wait_watched().await;
    one.fail(&claim, failed("exit code: 1")).await;
    let answer = waiting.await.expect("the task lives").answer();
    let claim_reply::Answer::Failure(failure) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(failure.message, "exit code: 1");
    two.claim("b").await.run();
}

#[tokio::test]
async fn who_waits_takes_over_from_a_lost_worker_whose_late_result_is_refused() {
    let setup = Setup::new(quick()).await;
    let (one, two, mut a, _b) = two_jobs(&setup).await;
    let first = one.claim("a").await.run();
    let waiting = two.claim_later("b");
    setup.wait_watched().await;
    let gone = one.disconnect();
    let second = waiting.await.expect("the task lives").run();
    assert!(second.generation > first.generation);
    assert!(matches!(
        a.next_but_assigned().await,
        JobEvent::WorkerLost { .. }
    ));

    let mut back = gone.reconnect(vec![first.clone()], vec!["a".into()]).await;
    let registered = back.registered().await;
    assert_eq!(registered.lost_claims, std::slice::from_ref(&first));
    assert_eq!(registered.lost_jobs, ["a"]);
    assert!(back.complete(&first).await.stale);
    assert!(!two.complete(&second).await.stale);
}

#[tokio::test]
async fn a_step_is_two_transactions() {
    let mut config = quick();
    // Nobody looks for lapsed claims meanwhile, which would be counted too.
    config.claim_ttl = Duration::from_secs(24 * 3600);
    let setup = Setup::new(config).await;
    let mut one = setup.worker("one", &[AMD64]).await;
    let _a = setup.submit("a", AMD64);
    one.started("a").await;
    let before = setup.transactions();
    let claim = one.claim("a").await.run();
    assert!(!one.complete(&claim).await.stale);
    assert_eq!(setup.transactions() - before, 2, "the claim and the result");
}

#[tokio::test]
async fn a_worker_that_comes_back_in_time_goes_on() {
    let mut config = quick();
    config.worker_grace = Duration::from_secs(20);
    let setup = Setup::new(config).await;
    let mut one = setup.worker("one", &[AMD64]).await;
    let mut a = setup.submit("a", AMD64);
    one.started("a").await;
    let claim = one.claim("a").await.run();
    let gone = one.disconnect();
    let mut back = gone.reconnect(vec![claim.clone()], vec!["a".into()]).await;
    let registered = back.registered().await;
    assert!(registered.lost_claims.is_empty() && registered.lost_jobs.is_empty());
    assert!(!back.complete(&claim).await.stale);
    back.job_ended("a").await;
    assert!(matches!(
        a.next_but_assigned().await,
        JobEvent::StepKnown { .. }
    ));
    assert!(matches!(a.next().await, JobEvent::Ended));
    // The job was not handed out again.
    assert!(!back.has_order(|order| matches!(order, to_worker::Order::StartJob(_))));
}

#[tokio::test]
async fn a_job_that_a_worker_forgot_is_planned_anew() {
    let mut config = quick();
    config.worker_grace = Duration::from_secs(20);
    let setup = Setup::new(config).await;
    let mut one = setup.worker("one", &[AMD64]).await;
    let mut a = setup.submit("a", AMD64);
    one.started("a").await;
    let mut back = one.disconnect().reconnect(vec![], vec![]).await;
    back.registered().await;
    assert!(matches!(
        a.next_but_assigned().await,
        JobEvent::WorkerLost { .. }
    ));
}

#[tokio::test]
async fn a_step_is_stopped_only_when_the_last_job_leaves() {
    let setup = Setup::new(quick()).await;
    let (mut one, two, _a, _b) = two_jobs(&setup).await;
    let claim = one.claim("a").await.run();
    let waiting = two.claim_later("b");
    setup.wait_watched().await;
    setup.farm.cancel(&JobId::new("a"), "its client left");
    let order = one.order().await;
    assert!(matches!(order, to_worker::Order::CancelJob(_)), "{order:?}");
    setup.farm.cancel(&JobId::new("b"), "its client left");
    let to_worker::Order::StopStep(stop) = one.order().await else {
        panic!("not stopped")
    };
    assert_eq!(stop.claim, Some(claim));
    let status = waiting.await.expect("the task lives").refused();
    assert_eq!(status.code(), tonic::Code::Cancelled);
}

#[tokio::test]
async fn an_order_to_stop_that_was_lost_is_repeated_when_the_worker_comes_back() {
    let mut config = quick();
    config.worker_grace = Duration::from_secs(20);
    let setup = Setup::new(config).await;
    let mut one = setup.worker("one", &[AMD64]).await;
    let _a = setup.submit("a", AMD64);
    one.started("a").await;
    let claim = one.claim("a").await.run();
    let gone = one.disconnect();
    setup.wait_connected(0).await;
    setup.farm.cancel(&JobId::new("a"), "its client left");
    let mut back = gone.reconnect(vec![claim.clone()], vec!["a".into()]).await;
    assert_eq!(back.registered().await.lost_claims, [claim]);
}

#[tokio::test]
async fn a_claim_that_its_worker_never_heard_of_is_given_to_another() {
    let setup = Setup::new(quick()).await;
    let (one, two, _a, _b) = two_jobs(&setup).await;
    one.claim("a").await.run();
    let waiting = two.claim_later("b");
    // Two heartbeats that do not show it: the answer was lost.
    one.heartbeat(vec![]).await;
    one.heartbeat(vec![]).await;
    waiting.await.expect("the task lives").run();
}

#[tokio::test]
async fn a_result_that_became_known_before_a_job_found_a_worker_comes_with_the_job() {
    let mut config = quick();
    config.away_grace = Duration::from_secs(20);
    let setup = Setup::new(config).await;
    setup.worker("one", &[AMD64]).await.disconnect();
    setup.wait_connected(0).await;
    let mut a = setup.submit("a", AMD64);
    assert!(matches!(a.next().await, JobEvent::Waiting { .. }));
    setup.farm.step_known(&JobId::new("a"), parts::known());
    let mut one = setup.worker("one", &[AMD64]).await;
    let order = one.started("a").await;
    assert_eq!(order.known, [parts::known()]);
}

#[tokio::test]
async fn a_stopping_worker_keeps_its_step_and_gives_its_job_back() {
    let setup = Setup::new(quick()).await;
    let mut one = setup.worker("one", &[AMD64]).await;
    let mut a = setup.submit("a", AMD64);
    one.started("a").await;
    let claim = one.claim("a").await.run();
    let mut two = setup.worker("two", &[AMD64]).await;
    one.send(from_worker::Event::Draining(Default::default()))
        .await;
    assert!(matches!(
        a.next_but_assigned().await,
        JobEvent::GivenBack { .. }
    ));
    let _again = setup.submit("b", AMD64);
    two.started("b").await;
    let waiting = two.claim_later("b");
    setup.wait_watched().await;
    assert!(!one.complete(&claim).await.stale);
    let answer = waiting.await.expect("the task lives").answer();
    assert!(
        matches!(answer, claim_reply::Answer::Result(_)),
        "{answer:?}"
    );
    assert!(!one.has_order(|order| matches!(order, to_worker::Order::StopStep(_))));
}

#[tokio::test]
async fn a_name_belongs_to_the_process_that_is_heard_from() {
    let mut config = quick();
    config.heartbeat = Duration::from_secs(2);
    let setup = Setup::new(config).await;
    let one = setup.worker("one", &[AMD64]).await;
    let second = setup.worker_later("one", &[AMD64]);
    tokio::task::yield_now().await;
    let refused = parts::beating(&one, second).await;
    assert_eq!(
        refused.err().map(|s| s.code()),
        Some(tonic::Code::AlreadyExists)
    );
    // Silent for four heartbeats' time: its connection counts as broken, and its successor is let in.
    let successor = setup.worker_later("one", &[AMD64]);
    successor.await.expect("the task lives").expect("let in");
}

#[tokio::test]
async fn what_nobody_can_run_is_refused_and_what_is_away_is_waited_for() {
    let mut config = quick();
    config.away_grace = Duration::from_millis(300);
    let setup = Setup::new(config).await;
    let one = setup.worker("one", &[AMD64]).await;
    let mut refused = setup.submit("a", "linux/s390x");
    let JobEvent::Refused { reason } = refused.next().await else {
        panic!("not refused")
    };
    assert!(
        reason.contains("linux/s390x") && reason.contains(AMD64),
        "{reason}"
    );
    one.disconnect();
    setup.wait_connected(0).await;
    let mut away = setup.submit("b", AMD64);
    assert!(matches!(away.next().await, JobEvent::Waiting { .. }));
    assert!(matches!(away.next().await, JobEvent::Refused { .. }));
}
