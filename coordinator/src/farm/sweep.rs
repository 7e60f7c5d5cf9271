//! What is looked at again and again while the farm runs: claims that lapsed, and steps that nobody wants any more.

use std::sync::Arc;
use std::time::Duration;

use buildyard_proto::v1::{self as proto, to_worker};

use super::claims::RunEnd;
use super::convert::held_to;
use super::{Farm, now};

/// How long lapsed claims are remembered: so long a late result finds its claim.
const FORGET: Duration = Duration::from_secs(24 * 3600);

/// How long a step that survived the coordinator's restart goes on without anybody asking for it.
const ORPHANED: Duration = Duration::from_secs(300);

/// Runs until the farm ends.
pub(super) async fn run(farm: Arc<Farm>) {
    let mut tick = tokio::time::interval(Duration::from_secs(1).max(farm.config.claim_ttl / 10));
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = farm.cancel.cancelled() => return,
        }
        expire(&farm).await;
        stop_orphans(&farm);
        if let Err(error) = farm.store.flush_uses().await {
            tracing::error!(%error, "uses could not be written down");
        }
    }
}

/// Wakes those who wait for claims that lapsed.
async fn expire(farm: &Farm) {
    match farm.store.expire(now(), now().minus(FORGET)).await {
        Ok(lapsed) => {
            for lapsed in lapsed {
                tracing::warn!(worker_id = %lapsed.by.worker, step = %lapsed.by.step, "a claim lapsed");
                farm.claims.end(&lapsed.held, RunEnd::GivenUp);
            }
        }
        Err(error) => tracing::error!(%error, "lapsed claims could not be looked up"),
    }
}

fn stop_orphans(farm: &Farm) {
    for run in farm.claims.orphans(ORPHANED) {
        let order = proto::StopStep {
            claim: Some(held_to(&run.held)),
            reason: "nobody has asked for it since the coordinator was started anew".to_owned(),
        };
        farm.workers
            .order(&run.worker, to_worker::Order::StopStep(order));
    }
}
