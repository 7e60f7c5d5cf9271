//! Between the messages of the worker protocol and the farm's own values.

use buildyard_model::{BuildId, Chain, ParseDigestError, Scope};
use buildyard_proto::v1 as proto;
use buildyard_store::{ClaimKey, Generation, HeldClaim};
use tonic::Status;

/// A malformed value in a worker's message.
pub(super) fn malformed(what: &str) -> impl Fn(ParseDigestError) -> Status + '_ {
    move |error| Status::invalid_argument(format!("the worker sent a malformed {what}: {error}"))
}

pub(super) fn held_from(claim: &proto::HeldClaim) -> Result<HeldClaim, Status> {
    let only_for = (!claim.only_build.is_empty()).then(|| BuildId::new(&claim.only_build));
    Ok(HeldClaim {
        claim: ClaimKey {
            key: claim.key.parse().map_err(malformed("key"))?,
            scope: Scope::new(&claim.scope),
            only_for,
        },
        generation: Generation(claim.generation),
    })
}

pub(super) fn held_to(held: &HeldClaim) -> proto::HeldClaim {
    proto::HeldClaim {
        key: held.claim.key.to_string(),
        scope: held.claim.scope.to_string(),
        only_build: held
            .claim
            .only_for
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        generation: held.generation.0,
    }
}

/// The chains of a recorded result; an output that the step does not have is never asked for.
pub fn chains_of(result: &buildyard_store::StepResult) -> Vec<Chain> {
    result
        .outputs
        .iter()
        .map(|chain| chain.clone().unwrap_or_default())
        .collect()
}
