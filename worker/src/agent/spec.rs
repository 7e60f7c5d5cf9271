//! A job as the worker sees it: the coordinator's order, decoded and checked.

use std::collections::HashMap;
use std::sync::Arc;

use buildyard_llb::{Step, StepName, pb};
use buildyard_model::{Chain, Digest, StepDigest};
use buildyard_proto::{decode_result, v1 as proto};
use prost::Message;

/// A job.
pub(crate) struct JobSpec {
    pub(crate) id: String,
    pub(crate) steps: Vec<JobStep>,
    pub(crate) known: HashMap<StepDigest, Vec<Chain>>,
    pub(crate) allow_host_network: bool,
}

/// A step of a job and where its inputs come from.
pub(crate) struct JobStep {
    pub(crate) step: Step,
    pub(crate) inputs: Vec<(StepDigest, usize)>,
}

/// An order that cannot be understood: coordinator and worker are of different versions, or one of them is wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpecError {
    #[error("the job has a malformed digest")]
    Digest(#[from] buildyard_model::ParseDigestError),
    #[error("the operation of step {0} cannot be decoded")]
    Operation(StepDigest, #[source] prost::DecodeError),
    #[error("step {0} does not have the digest that it is sent under")]
    Mismatch(StepDigest),
    #[error("step {0} has a malformed platform")]
    Platform(StepDigest, #[source] buildyard_model::ParsePlatformError),
}

impl JobSpec {
    /// Decodes an order.
    pub(crate) fn decode(order: proto::StartJob) -> Result<Self, SpecError> {
        let steps = order
            .steps
            .into_iter()
            .map(decode_step)
            .collect::<Result<_, _>>()?;
        let known = order
            .known
            .into_iter()
            .map(|known| {
                Ok((
                    known.step.parse()?,
                    decode_result(&known.result.unwrap_or_default())?,
                ))
            })
            .collect::<Result<_, SpecError>>()?;
        Ok(Self {
            id: order.job,
            steps,
            known,
            allow_host_network: order.allow_host_network,
        })
    }
}

fn decode_step(step: proto::JobStep) -> Result<JobStep, SpecError> {
    let digest: StepDigest = step.digest.parse()?;
    if Digest::of(&step.op) != digest.0 {
        return Err(SpecError::Mismatch(digest));
    }
    let op = pb::Op::decode(step.op.clone()).map_err(|e| SpecError::Operation(digest, e))?;
    let platform = match step.platform.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|e| SpecError::Platform(digest, e))?),
    };
    let inputs = step
        .inputs
        .iter()
        .map(|input| Ok((input.step.parse()?, input.output as usize)))
        .collect::<Result<_, SpecError>>()?;
    Ok(JobStep {
        inputs,
        step: Step {
            digest,
            op: Arc::new(op),
            bytes: step.op.to_vec().into(),
            inputs: Vec::new(),
            outputs: step.outputs as usize,
            platform,
            name: StepName {
                text: step.name,
                progress_group: None,
            },
            ignore_cache: step.ignore_cache,
        },
    })
}
