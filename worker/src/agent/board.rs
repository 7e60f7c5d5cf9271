//! The results that the steps of a job wait for: written once each, read by many.
//!
//! A result is known here as soon as it is made, before it is on the disk and recorded: the steps behind it go on with it. What
//! they make of it is recorded only after it was, so nothing is ever recorded on top of what the farm does not know.

use std::collections::HashMap;
use std::sync::Arc;

use buildyard_model::{Chain, StepDigest};
use tokio::sync::watch;

use super::spec::JobSpec;

type Slot = watch::Sender<Option<Known>>;

/// One slot for each step of a job and for each input that comes from elsewhere.
pub(crate) struct Board(HashMap<StepDigest, Slot>);

/// What a step yielded.
#[derive(Clone)]
pub(crate) struct Known {
    pub(crate) chains: Arc<[Chain]>,
    /// Whether the farm knows it too.
    pub(crate) recorded: Recorded,
}

/// Whether a result is recorded, now or in a moment.
#[derive(Clone)]
pub(crate) struct Recorded(Option<watch::Receiver<bool>>);

/// Held by whoever records a result. Dropping it says that it came to nothing.
pub(crate) struct Recording(watch::Sender<bool>);

impl Recorded {
    /// Waits until the result is recorded. `false` if it will not be.
    pub(crate) async fn wait(mut self) -> bool {
        match &mut self.0 {
            Some(recorded) => recorded.wait_for(|recorded| *recorded).await.is_ok(),
            None => true,
        }
    }
}

impl Recording {
    /// It is recorded.
    pub(crate) fn done(self) {
        self.0.send_replace(true);
    }
}

impl Board {
    /// A board on which what the job's order brought is already known.
    pub(crate) fn new(spec: &JobSpec) -> Self {
        let mut slots = HashMap::new();
        for job_step in &spec.steps {
            slots
                .entry(job_step.step.digest)
                .or_insert_with(|| watch::Sender::new(None));
            for (input, _) in &job_step.inputs {
                slots
                    .entry(*input)
                    .or_insert_with(|| watch::Sender::new(None));
            }
        }
        let board = Self(slots);
        for (step, chains) in &spec.known {
            board.set(*step, chains.clone());
        }
        board
    }

    /// Makes a recorded result known. Ignored where nobody on this board needs it.
    pub(crate) fn set(&self, step: StepDigest, chains: Vec<Chain>) {
        self.put(step, chains, Recorded(None));
    }

    /// Makes a result known that is still to be recorded by whoever holds the answer.
    pub(crate) fn set_made(&self, step: StepDigest, chains: Vec<Chain>) -> Recording {
        let (recording, recorded) = watch::channel(false);
        self.put(step, chains, Recorded(Some(recorded)));
        Recording(recording)
    }

    fn put(&self, step: StepDigest, chains: Vec<Chain>, recorded: Recorded) {
        if let Some(slot) = self.0.get(&step) {
            let chains = chains.into();
            slot.send_replace(Some(Known { chains, recorded }));
        }
    }

    /// Waits for a result.
    pub(crate) async fn get(&self, step: StepDigest) -> Known {
        let mut slot = self.0[&step].subscribe();
        let value = slot
            .wait_for(Option::is_some)
            .await
            .expect("the board outlives its readers");
        value.clone().expect("waited for a value")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_made_is_known_at_once_and_recorded_later_or_never() {
        let board = Board(HashMap::new());
        let (kept, lost) = (
            board.set_made(step("a"), vec![]),
            board.set_made(step("b"), vec![]),
        );
        drop((kept, lost));
        let slots = ["a", "b", "c"].map(|name| (step(name), watch::Sender::new(None)));
        let board = Board(slots.into());
        board.set(step("c"), vec![Chain::scratch()]);
        assert!(board.get(step("c")).await.recorded.wait().await);
        let kept = board.set_made(step("a"), vec![]);
        let lost = board.set_made(step("b"), vec![]);
        let (a, b) = (board.get(step("a")).await, board.get(step("b")).await);
        kept.done();
        drop(lost);
        assert!(a.recorded.wait().await);
        assert!(!b.recorded.wait().await);
    }

    fn step(name: &str) -> StepDigest {
        StepDigest(buildyard_model::Digest::of(name))
    }
}
