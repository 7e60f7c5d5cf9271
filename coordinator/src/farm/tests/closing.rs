//! What becomes of running steps when the coordinator stops in order, and when it is killed.

use std::time::Duration;

use buildyard_model::JobId;
use buildyard_proto::v1::{self as proto, claim_reply, failure, from_worker, to_worker};

use super::super::{FarmConfig, JobEvent};
use super::AMD64;
use super::parts::{Fake, Setup};

/// Nothing here may depend on these running out.
fn patient() -> FarmConfig {
    FarmConfig {
        worker_grace: Duration::from_secs(60),
        settle_within: Duration::from_secs(60),
        claim_ttl: Duration::from_secs(24 * 3600),
        ..FarmConfig::default()
    }
}

fn cancelled() -> proto::Failure {
    proto::Failure {
        kind: failure::Kind::Cancelled.into(),
        ..proto::Failure::default()
    }
}

/// A worker on which the step of a job runs.
async fn running(setup: &Setup) -> (Fake, proto::HeldClaim) {
    let mut one = setup.worker("one", &[AMD64]).await;
    let _a = setup.submit("a", AMD64);
    one.started("a").await;
    let claim = one.claim("a").await.run();
    (one, claim)
}

/// Closes the farm beside the test.
fn close(setup: &Setup) -> tokio::task::JoinHandle<()> {
    let farm = setup.farm.clone();
    tokio::spawn(async move { farm.close("it stops").await })
}

async fn hear(one: &Fake) {
    let heard = from_worker::Event::ShutdownHeard(proto::ShutdownHeard {});
    one.try_send(heard).await;
}

/// A new job's step is to be run at once: nobody holds a claim on it.
async fn is_free(setup: &Setup, worker: &mut Fake) {
    let _again = setup.submit("again", AMD64);
    worker.started("again").await;
    worker.claim("again").await.run();
}

#[tokio::test]
async fn a_coordinator_that_stops_has_its_steps_stopped_before_it_hangs_up() {
    let setup = Setup::new(patient()).await;
    let (mut one, claim) = running(&setup).await;
    let closing = close(&setup);
    assert!(matches!(one.order().await, to_worker::Order::CancelJob(_)));
    let to_worker::Order::StopStep(stop) = one.order().await else {
        panic!("not stopped")
    };
    assert_eq!(stop.claim.as_ref(), Some(&claim));
    assert!(matches!(one.order().await, to_worker::Order::Shutdown(_)));
    hear(&one).await;
    // It waits for the step to have ended, too: the line is still good for the report.
    one.fail(&claim, cancelled()).await;
    one.line_ends().await;
    closing.await.unwrap();
    let gone = one.disconnect();
    let setup = setup.next(patient()).await;
    let mut back = gone.of(&setup).reconnect(vec![], vec![]).await;
    back.registered().await;
    is_free(&setup, &mut back).await;
}

#[tokio::test]
async fn a_worker_that_did_not_hear_it_is_told_by_the_next_coordinator() {
    let mut config = patient();
    config.settle_within = Duration::from_millis(1);
    let setup = Setup::new(config).await;
    let (one, claim) = running(&setup).await;
    close(&setup).await.unwrap();
    let gone = one.disconnect();
    let setup = setup.next(patient()).await;
    let mut back = gone
        .of(&setup)
        .reconnect(vec![claim.clone()], vec!["a".into()])
        .await;
    let registered = back.registered().await;
    assert_eq!(registered.lost_claims, [claim]);
    assert_eq!(registered.lost_jobs, ["a"]);
    is_free(&setup, &mut back).await;
}

#[tokio::test]
async fn a_worker_that_comes_back_while_the_coordinator_stops_is_told_everything() {
    let setup = Setup::new(patient()).await;
    let (one, first) = running(&setup).await;
    // Keeps the farm from being settled.
    let mut two = setup.worker("two", &[AMD64]).await;
    let gone = one.disconnect();
    setup.wait_connected(1).await;
    let closing = close(&setup);
    while !matches!(two.order().await, to_worker::Order::Shutdown(_)) {}
    let mut back = gone.reconnect(vec![first.clone()], vec!["a".into()]).await;
    let registered = back.registered().await;
    assert_eq!(registered.lost_claims, std::slice::from_ref(&first));
    assert!(matches!(back.order().await, to_worker::Order::Shutdown(_)));
    hear(&back).await;
    back.fail(&first, cancelled()).await;
    hear(&two).await;
    closing.await.unwrap();
    back.line_ends().await;
    assert!(
        back.disconnect()
            .try_reconnect(vec![], vec![])
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_claim_that_its_worker_never_heard_of_is_given_away_when_it_comes_back_without_it() {
    let setup = Setup::new(patient()).await;
    let (one, _unheard) = running(&setup).await;
    let mut two = setup.worker("two", &[AMD64]).await;
    let gone = one.disconnect();
    setup.wait_connected(1).await;
    let _b = setup.submit("b", AMD64);
    two.started("b").await;
    let waiting = two.claim_later("b");
    setup.wait_watched().await;
    setup.farm.cancel(&JobId::new("a"), "its client left");
    let mut back = gone.reconnect(vec![], vec!["a".into()]).await;
    assert_eq!(back.registered().await.lost_jobs, ["a"]);
    let answer = waiting.await.unwrap().answer();
    assert!(matches!(answer, claim_reply::Answer::Run(_)), "{answer:?}");
}

#[tokio::test]
async fn a_claim_that_is_asked_for_again_is_not_given_away_when_its_worker_comes_back() {
    let setup = Setup::new(patient()).await;
    let (one, unheard) = running(&setup).await;
    let mut back = one.disconnect().reconnect(vec![], vec!["a".into()]).await;
    back.registered().await;
    assert_eq!(back.claim("a").await.run(), unheard);
    assert!(!back.complete(&unheard).await.stale);
}

#[tokio::test]
async fn a_claim_of_a_killed_coordinators_time_that_its_worker_does_not_show_is_free() {
    let setup = Setup::new(patient()).await;
    let (one, _unheard) = running(&setup).await;
    let gone = one.disconnect();
    let setup = setup.next(patient()).await;
    let mut back = gone.of(&setup).reconnect(vec![], vec![]).await;
    back.registered().await;
    is_free(&setup, &mut back).await;
}

#[tokio::test]
async fn a_killed_coordinators_step_goes_on_and_the_next_build_takes_its_result() {
    let setup = Setup::new(patient()).await;
    let (one, claim) = running(&setup).await;
    let gone = one.disconnect();
    let setup = setup.next(patient()).await;
    let mut back = gone
        .of(&setup)
        .reconnect(vec![claim.clone()], vec!["a".into()])
        .await;
    let registered = back.registered().await;
    assert!(registered.lost_claims.is_empty(), "{registered:?}");
    assert_eq!(registered.lost_jobs, ["a"]);
    let _b = setup.submit("b", AMD64);
    back.started("b").await;
    let waiting = back.claim_later("b");
    setup.wait_watched().await;
    assert!(!back.complete(&claim).await.stale);
    let answer = waiting.await.unwrap().answer();
    assert!(
        matches!(answer, claim_reply::Answer::Result(_)),
        "{answer:?}"
    );
}

#[tokio::test]
async fn an_adopted_step_goes_on_when_others_are_cancelled_and_over_an_orderly_restart() {
    let setup = Setup::new(patient()).await;
    let (one, claim) = running(&setup).await;
    let gone = one.disconnect();
    let setup = setup.next(patient()).await;
    let mut back = gone.of(&setup).reconnect(vec![claim.clone()], vec![]).await;
    back.registered().await;
    // This job never gets as far as to ask for the step.
    let mut b = setup.submit("b", AMD64);
    back.started("b").await;
    assert!(matches!(b.next().await, JobEvent::Assigned { .. }));
    setup.farm.cancel(&JobId::new("b"), "its client left");
    assert!(matches!(back.order().await, to_worker::Order::CancelJob(_)));
    let closing = close(&setup);
    assert!(matches!(back.order().await, to_worker::Order::Shutdown(_)));
    hear(&back).await;
    closing.await.unwrap();
    let gone = back.disconnect();
    let setup = setup.next(patient()).await;
    let mut back = gone.of(&setup).reconnect(vec![claim.clone()], vec![]).await;
    assert!(back.registered().await.lost_claims.is_empty());
    assert!(!back.complete(&claim).await.stale);
}

/// Workers that obey, and break their connections as they like.
mod obedient {
    use std::collections::HashSet;

    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    use tokio::task::JoinSet;

    use super::super::parts::{Answered, Gone};
    use super::*;

    struct Worker {
        dice: StdRng,
        running: Vec<proto::HeldClaim>,
        /// Jobs that are wanted here.
        jobs: HashSet<String>,
        asked: JoinSet<(String, Answered)>,
    }

    /// Lives until the coordinator takes it in no more. Returns what still runs on it.
    pub(super) async fn live(mut fake: Fake, seed: u64) -> (Gone, Vec<proto::HeldClaim>) {
        let mut worker = Worker {
            dice: StdRng::seed_from_u64(seed),
            running: Vec::new(),
            jobs: HashSet::new(),
            asked: JoinSet::new(),
        };
        loop {
            worker.serve(&mut fake).await;
            let gone = fake.disconnect();
            worker.pause().await;
            // An answer that was on its way may still have come.
            while let Some(Ok((job, answer))) = worker.asked.join_next().await {
                worker.note(&job, answer);
            }
            let jobs = worker.jobs.iter().cloned().collect();
            let keep = gone.clone();
            match gone.try_reconnect(worker.running.clone(), jobs).await {
                Ok(back) => fake = back,
                Err(_) => return (keep, worker.running),
            }
        }
    }

    impl Worker {
        /// One connection.
        async fn serve(&mut self, fake: &mut Fake) {
            loop {
                self.pause().await;
                if self.dice.random_ratio(1, 12) {
                    return;
                }
                tokio::select! {
                    order = fake.next_order() => match order {
                        Some(order) => self.obey(fake, order).await,
                        None => return,
                    },
                    Some(Ok((job, answer))) = self.asked.join_next() => {
                        if let Some(claim) = self.note(&job, answer) {
                            fake.fail(&claim, cancelled()).await;
                        }
                    }
                }
            }
        }

        /// Takes an answer to a claim in. Returns a claim that is to be given back.
        fn note(&mut self, job: &str, answer: Answered) -> Option<proto::HeldClaim> {
            let claim = answer.claim()?;
            if self.running.contains(&claim) {
                return None;
            }
            if self.jobs.contains(job) {
                self.running.push(claim);
                return None;
            }
            Some(claim)
        }

        fn ask(&mut self, fake: &Fake, job: String) {
            let asked = fake.claim_later(&job);
            self.asked.spawn(async move { (job, asked.await.unwrap()) });
        }

        async fn obey(&mut self, fake: &Fake, order: to_worker::Order) {
            match order {
                to_worker::Order::StartJob(start) => {
                    self.jobs.insert(start.job.clone());
                    self.ask(fake, start.job);
                }
                to_worker::Order::CancelJob(cancel) => {
                    self.jobs.remove(&cancel.job);
                }
                to_worker::Order::StopStep(stop) => {
                    let claim = stop.claim.unwrap();
                    self.running.retain(|running| *running != claim);
                    self.pause().await;
                    fake.fail(&claim, cancelled()).await;
                }
                to_worker::Order::Registered(registered) => {
                    self.running
                        .retain(|running| !registered.lost_claims.contains(running));
                    self.jobs.retain(|job| !registered.lost_jobs.contains(job));
                    for job in self.jobs.clone() {
                        self.ask(fake, job);
                    }
                }
                to_worker::Order::Shutdown(_) => hear(fake).await,
                to_worker::Order::StepKnown(_) => {}
            }
        }

        async fn pause(&mut self) {
            for _ in 0..self.dice.random_range(0..12) {
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Whenever the coordinator stops, and wherever connections break meanwhile: no step goes on, and no claim stays.
async fn nothing_goes_on_after_an_orderly_stop(seeds: std::ops::Range<u64>) {
    use rand::{RngExt, SeedableRng};
    for seed in seeds {
        let mut dice = rand::rngs::StdRng::seed_from_u64(seed);
        let setup = Setup::new(patient()).await;
        let mut lives = Vec::new();
        for (number, name) in ["one", "two"].into_iter().enumerate() {
            let fake = setup.worker(name, &[AMD64]).await;
            lives.push(tokio::spawn(obedient::live(fake, seed * 2 + number as u64)));
        }
        let _jobs = ["a", "b", "c"].map(|job| setup.submit(job, AMD64));
        for _ in 0..dice.random_range(0..200) {
            tokio::task::yield_now().await;
        }
        setup.farm.cancel(&JobId::new("b"), "its client left");
        for _ in 0..dice.random_range(0..100) {
            tokio::task::yield_now().await;
        }
        close(&setup).await.unwrap();
        let setup = setup.next(patient()).await;
        let mut back = None;
        for life in lives {
            let (gone, running) = life.await.unwrap();
            let mut fake = gone.of(&setup).reconnect(running.clone(), vec![]).await;
            assert_eq!(fake.registered().await.lost_claims, running, "seed {seed}");
            back.get_or_insert(fake);
        }
        // Only one is left.
        setup.wait_connected(1).await;
        is_free(&setup, &mut back.unwrap()).await;
    }
}

#[tokio::test]
async fn whatever_happens_meanwhile_nothing_goes_on_the_first_third() {
    nothing_goes_on_after_an_orderly_stop(0..20).await;
}

#[tokio::test]
async fn whatever_happens_meanwhile_nothing_goes_on_the_second_third() {
    nothing_goes_on_after_an_orderly_stop(20..40).await;
}

#[tokio::test]
async fn whatever_happens_meanwhile_nothing_goes_on_the_last_third() {
    nothing_goes_on_after_an_orderly_stop(40..60).await;
}
