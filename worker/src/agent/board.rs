//! The results that the steps of a job wait for: written once each, read by many.

use std::collections::HashMap;
use std::sync::Arc;

use buildyard_model::{Chain, StepDigest};
use tokio::sync::watch;

use super::spec::JobSpec;

type Slot = watch::Sender<Option<Arc<[Chain]>>>;

/// One slot for each step of a job and for each input that comes from elsewhere.
pub(crate) struct Board(HashMap<StepDigest, Slot>);

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

    /// Makes a step's result known. Ignored where nobody on this board needs it.
    pub(crate) fn set(&self, step: StepDigest, chains: Vec<Chain>) {
        if let Some(slot) = self.0.get(&step) {
            slot.send_replace(Some(chains.into()));
        }
    }

    /// Waits for a result.
    pub(crate) async fn get(&self, step: StepDigest) -> Arc<[Chain]> {
        let mut slot = self.0[&step].subscribe();
        let value = slot
            .wait_for(Option::is_some)
            .await
            .expect("the board outlives its readers");
        value.clone().expect("waited for a value")
    }
}
