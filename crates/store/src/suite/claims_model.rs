//! Claims against a model: any sequence of questions, losses and late messages.

use std::collections::HashMap;

use buildyard_model::WorkerId;
use proptest::prelude::*;

use super::{TTL, at, by, claim_of, held, result};
use crate::{Claim, ClaimKey, Completion, Generation, HeldClaim, Store};

const KEYS: [&str; 3] = ["a", "b", "c"];
const WORKERS: [&str; 3] = ["one", "two", "three"];

/// One message that reaches the store. Numbers choose among keys, workers and claims given so far.
#[derive(Debug, Clone)]
pub(crate) enum Message {
    Ask { worker: usize, key: usize },
    Renew { worker: usize },
    Complete { given: usize },
    Release { given: usize },
    Lose { worker: usize },
    Forget { key: usize },
    Wait { seconds: i64 },
}

pub(crate) fn messages() -> impl Strategy<Value = Vec<Message>> {
    let (worker, key, given) = (0..WORKERS.len(), 0..KEYS.len(), any::<usize>());
    let message = prop_oneof![
        6 => (worker.clone(), key.clone()).prop_map(|(worker, key)| Message::Ask { worker, key }),
        2 => worker.clone().prop_map(|worker| Message::Renew { worker }),
        2 => given.prop_map(|given| Message::Complete { given }),
        1 => given.prop_map(|given| Message::Release { given }),
        1 => worker.prop_map(|worker| Message::Lose { worker }),
        1 => key.prop_map(|key| Message::Forget { key }),
        2 => (1i64..40).prop_map(|seconds| Message::Wait { seconds }),
    ];
    proptest::collection::vec(message, 1..60)
}

/// What should be true.
#[derive(Default)]
struct Model {
    now: i64,
    /// Every claim ever given: whose it was.
    given: Vec<(HeldClaim, &'static str)>,
    /// Per key the claim that is valid, and until when.
    valid: HashMap<ClaimKey, (Generation, &'static str, i64)>,
    /// Per key the claim that recorded the result.
    done: HashMap<ClaimKey, Generation>,
}

pub(crate) async fn follows_the_model(store: &dyn Store, messages: &[Message]) {
    let mut model = Model::default();
    for message in messages {
        model.deliver(store, message).await;
        let lapsed = store.expire(at(model.now), at(-1)).await.expect("expired");
        for lapsed in lapsed {
            let (generation, _, until) = model.valid[&lapsed.held.claim];
            assert!(
                generation == lapsed.held.generation && until <= model.now,
                "{lapsed:?}"
            );
        }
    }
}

impl Model {
    async fn deliver(&mut self, store: &dyn Store, message: &Message) {
        match message {
            Message::Ask { worker, key } => {
                self.ask(store, WORKERS[*worker], claim_of(KEYS[*key]))
                    .await
            }
            Message::Renew { worker } => self.renew(store, WORKERS[*worker]).await,
            Message::Complete { given } => self.complete(store, *given).await,
            Message::Release { given } => self.release(store, *given).await,
            Message::Lose { worker } => self.lose(store, WORKERS[*worker]).await,
            Message::Forget { key } => {
                let claim = claim_of(KEYS[*key]);
                let forgotten = store
                    .forget(claim.key, &claim.scope)
                    .await
                    .expect("forgotten");
                assert_eq!(forgotten, self.done.remove(&claim).is_some());
            }
            Message::Wait { seconds } => self.now += seconds,
        }
    }

    async fn ask(&mut self, store: &dyn Store, worker: &'static str, claim: ClaimKey) {
        let until = self.now + TTL.as_secs().cast_signed();
        match store
            .claim_step(&claim, &by(worker), at(self.now), TTL)
            .await
            .expect("asked")
        {
            Claim::Done(_) => assert!(self.done.contains_key(&claim)),
            Claim::Held { generation, .. } => {
                let (valid, holder, until) = self.valid[&claim];
                assert!(valid == generation && holder != worker && until > self.now);
            }
            Claim::Run { generation } => {
                assert!(!self.done.contains_key(&claim), "it is done");
                match self.valid.get(&claim) {
                    Some((valid, holder, _)) if *holder == worker => assert_eq!(*valid, generation),
                    Some((_, _, until)) => assert!(*until <= self.now, "two run it"),
                    None => {}
                }
                let held = held(&claim, generation);
                if !self.given.iter().any(|(given, _)| *given == held) {
                    assert!(
                        self.given
                            .iter()
                            .all(|(given, _)| given.generation < generation),
                        "numbers grow"
                    );
                    self.given.push((held, worker));
                }
                self.valid.insert(claim, (generation, worker, until));
            }
        }
    }

    async fn renew(&mut self, store: &dyn Store, worker: &'static str) {
        let shown: Vec<HeldClaim> = self
            .given
            .iter()
            .filter(|(_, holder)| *holder == worker)
            .map(|(held, _)| held.clone())
            .collect();
        let lost = store
            .renew(&WorkerId::new(worker), &shown, at(self.now), TTL)
            .await
            .expect("renewed");
        for held in shown {
            let valid = self
                .valid
                .get_mut(&held.claim)
                .filter(|(valid, ..)| *valid == held.generation);
            assert_eq!(lost.contains(&held), valid.is_none(), "{held:?}");
            if let Some((_, _, until)) = valid {
                *until = (*until).max(self.now + TTL.as_secs().cast_signed());
            }
        }
    }

    async fn complete(&mut self, store: &dyn Store, given: usize) {
        let Some((held, worker)) = self.pick(given) else {
            return;
        };
        let valid = self.is_valid(&held);
        let repeated = self.done.get(&held.claim) == Some(&held.generation);
        let completion = store
            .complete(&held, &result(worker, &["x"]), &[], at(self.now))
            .await
            .expect("asked");
        assert_eq!(
            completion == Completion::Accepted,
            valid || repeated,
            "{held:?}"
        );
        if valid {
            self.valid.remove(&held.claim);
            self.done.insert(held.claim, held.generation);
        }
    }

    async fn release(&mut self, store: &dyn Store, given: usize) {
        let Some((held, _)) = self.pick(given) else {
            return;
        };
        assert_eq!(
            store.release(&held).await.expect("asked"),
            self.is_valid(&held)
        );
        if self.is_valid(&held) {
            self.valid.remove(&held.claim);
        }
    }

    async fn lose(&mut self, store: &dyn Store, worker: &'static str) {
        store
            .release_worker(&WorkerId::new(worker), at(self.now))
            .await
            .expect("released");
        for (_, holder, until) in self.valid.values_mut() {
            if *holder == worker {
                *until = (*until).min(self.now);
            }
        }
    }

    fn pick(&self, given: usize) -> Option<(HeldClaim, &'static str)> {
        (!self.given.is_empty()).then(|| self.given[given % self.given.len()].clone())
    }

    fn is_valid(&self, held: &HeldClaim) -> bool {
        self.valid
            .get(&held.claim)
            .is_some_and(|(generation, ..)| *generation == held.generation)
    }
}
