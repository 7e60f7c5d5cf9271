//! The cache key of a step (ARCHITECTURE.md, "Cache keys").
//!
//! `sha256(operation, platform if it executes, content ids of its inputs)`. The operation goes in without what must not
//! matter: input digests (their content counts instead), names, proxy arguments, and the paths that content ids already cover.

use bollard_buildkit_proto::pb::{self, op::Op};
use buildyard_model::{Digest, DigestHasher, Platform, StepKey};
use prost::Message;

use crate::graph::Step;

/// The key of `step` whose inputs have these content ids: one list per input, one id per view, as
/// [`crate::view::views`] orders them.
pub fn step_key(step: &Step, inputs: &[Vec<Digest>]) -> StepKey {
    let mut hasher = DigestHasher::new("step-v1");
    hasher.field(operation(&step.op).encode_to_vec());
    let platform = step
        .executes()
        .then(|| step.platform.clone().unwrap_or_else(Platform::native));
    hasher.field(platform.map(|p| p.to_string()).unwrap_or_default());
    hasher.number(inputs.len() as u64);
    for ids in inputs {
        hasher.number(ids.len() as u64);
        for id in ids {
            hasher.field(id.as_bytes());
        }
    }
    StepKey(hasher.finish())
}

/// The operation reduced to what its result depends on beside its inputs.
fn operation(op: &pb::Op) -> pb::Op {
    let mut op = pb::Op {
        inputs: Vec::new(),
        platform: None,
        constraints: None,
        op: op.op.clone(),
    };
    match &mut op.op {
        Some(Op::Exec(exec)) => {
            if let Some(meta) = &mut exec.meta {
                meta.proxy_env = None;
            }
            for mount in &mut exec.mounts {
                if mount.readonly || mount.output < 0 {
                    mount.selector = String::new();
                }
            }
        }
        Some(Op::File(file)) => {
            for action in &mut file.actions {
                if let Some(pb::file_action::Action::Copy(copy)) = &mut action.action {
                    copy.src = copy
                        .src
                        .trim_end_matches('/')
                        .rsplit('/')
                        .next()
                        .unwrap_or_default()
                        .to_owned();
                }
            }
        }
        _ => {}
    }
    op
}
