//! Why a step came to nothing, and the form in which the coordinator hears of it.

use buildyard_model::{LayerId, StepDigest};
use buildyard_proto::v1::{self as proto, failure::Kind};

/// A failure on its way to the coordinator.
pub(crate) type Failure = proto::Failure;

/// The user's command or request failed.
pub(crate) fn of_step(step: StepDigest, message: impl Into<String>, exit_code: i32) -> Failure {
    Failure {
        kind: Kind::Step.into(),
        message: message.into(),
        step: step.to_string(),
        exit_code,
        layer: String::new(),
    }
}

/// This machine could not do it; another may.
pub(crate) fn of_worker(step: StepDigest, error: &anyhow::Error) -> Failure {
    tracing::error!(%step, error = format!("{error:#}"), "a step could not be run");
    Failure {
        kind: Kind::Worker.into(),
        message: format!("{error:#}"),
        step: step.to_string(),
        ..Failure::default()
    }
}

/// A registry could not be read for now.
pub(crate) fn of_registry(step: StepDigest, message: impl Into<String>) -> Failure {
    Failure {
        kind: Kind::Registry.into(),
        message: message.into(),
        step: step.to_string(),
        ..Failure::default()
    }
}

/// Bytes of a layer that the step needs are nowhere to be had.
pub(crate) fn of_lost_layer(
    step: StepDigest,
    layer: LayerId,
    message: impl Into<String>,
) -> Failure {
    Failure {
        kind: Kind::LostLayer.into(),
        message: message.into(),
        step: step.to_string(),
        layer: layer.to_string(),
        ..Failure::default()
    }
}

/// Nobody wanted it any more.
pub(crate) fn cancelled(step: StepDigest) -> Failure {
    Failure {
        kind: Kind::Cancelled.into(),
        message: "cancelled".to_owned(),
        step: step.to_string(),
        ..Failure::default()
    }
}
