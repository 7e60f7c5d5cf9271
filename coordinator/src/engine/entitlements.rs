//! What steps may do only where the client allows it (`--allow`).

use buildyard_llb::Graph;
use buildyard_llb::pb::{self, op::Op};

use crate::backend::BuildError;

const HOST_NETWORK: &str = "network.host";

/// Whether a client that allows this lets its steps use their machine's network.
pub(super) fn host_network(allowed: &[String]) -> bool {
    allowed
        .iter()
        .any(|entitlement| entitlement == HOST_NETWORK)
}

/// Refuses a graph with steps that its client does not allow, before anything of it is looked up or run.
///
/// # Errors
/// The first such step, as BuildKit names it.
pub(super) fn check(graph: &Graph, allowed: &[String]) -> Result<(), BuildError> {
    for step in graph.steps() {
        let Some(Op::Exec(exec)) = &step.op.op else {
            continue;
        };
        let refusal = if exec.network() == pb::NetMode::Host && !host_network(allowed) {
            "network.host is not allowed: a step uses its machine's network; allow it with `--allow network.host`"
        } else if exec.security() == pb::SecurityMode::Insecure {
            "security.insecure is not allowed on this farm"
        } else {
            continue;
        };
        return Err(BuildError::failed(refusal.to_owned()).at_step(step.digest));
    }
    Ok(())
}
