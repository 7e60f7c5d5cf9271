//! Evaluating a job: every step as a task that waits for its inputs.

use std::sync::Arc;

use buildyard_proto::v1::{self as proto, from_worker};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::board::Board;
use super::failure::Failure;
use super::machine::Machine;
use super::spec::JobSpec;
use super::step;

/// A job under way on this worker.
pub(super) struct Job {
    pub(super) spec: JobSpec,
    pub(super) board: Board,
    /// The coordinator does not want it any more.
    pub(super) cancel: CancellationToken,
}

/// Evaluates a job to its end and tells the coordinator. Steps that are running go on by themselves if it is cancelled.
pub(super) async fn run(machine: Arc<Machine>, job: Arc<Job>) {
    let failure = tokio::select! {
        failure = evaluate(&machine, &job) => failure,
        () = job.cancel.cancelled() => return,
    };
    // Claims that are still asked for are given back when they are answered.
    job.cancel.cancel();
    let ended = proto::JobEnded {
        job: job.spec.id.clone(),
        failure,
    };
    machine.link.send(from_worker::Event::JobEnded(ended)).await;
}

async fn evaluate(machine: &Arc<Machine>, job: &Arc<Job>) -> Option<Failure> {
    let mut steps = JoinSet::new();
    for number in 0..job.spec.steps.len() {
        steps.spawn(step::evaluate(machine.clone(), job.clone(), number));
    }
    while let Some(ended) = steps.join_next().await {
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => return Some(failure),
            Err(error) => {
                let message = format!("a task of the worker died: {error}");
                return Some(Failure {
                    kind: proto::failure::Kind::Worker.into(),
                    message,
                    ..Failure::default()
                });
            }
        }
    }
    None
}
