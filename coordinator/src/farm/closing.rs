//! The end of a farm whose coordinator stops in order: what its builds wanted is stopped, and the workers know of it before
//! their connections end.
//!
//! Silence makes no worker stop a step, so an order to stop one must not be lost with the connection. The workers answer the
//! last order, which comes behind all others; whoever does not in time finds its claims given up when it comes to the next
//! coordinator. A coordinator that is killed does none of this: its workers go on, and the next one adopts what they run.

use std::time::Duration;

use super::Farm;
use super::claims::Run;

/// How often the farm looks whether the workers have settled, if nobody wakes it.
const LOOK: Duration = Duration::from_millis(50);

impl Farm {
    /// Ends the farm: cancels its jobs, waits a while for the workers to have stopped what nobody wants any more, ends their
    /// connections and its own tasks. Steps that this coordinator only adopted go on, for the next one.
    pub async fn close(&self, reason: &str) {
        // From here on no claim is given, and whoever was given one before is in the table.
        *self.gives_claims.write().await = false;
        let jobs: Vec<_> = self.lock_jobs().keys().cloned().collect();
        for job in jobs {
            self.cancel(&job, reason);
        }
        self.workers.order_shutdown(reason);
        let settled = tokio::time::timeout(self.config.settle_within, self.settled());
        if settled.await.is_err() {
            tracing::warn!(
                unheard = ?self.workers.unheard(), running = self.stopping().len(),
                "workers have not stopped everything in time; they will when they come to the next coordinator"
            );
        }
        self.workers.close();
        self.cancel.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.give_up_claims().await;
    }

    /// Returns when all workers have heard everything, and nothing runs on them that nobody wants.
    async fn settled(&self) {
        loop {
            let changed = self.changed.notified();
            if self.workers.unheard().is_empty() && self.stopping().is_empty() {
                return;
            }
            // The timeout is the tick.
            let _ = tokio::time::timeout(LOOK, changed).await;
        }
    }

    /// Runs that nobody wants any more, on workers that can say when they have ended.
    fn stopping(&self) -> Vec<std::sync::Arc<Run>> {
        let mut unwanted = self.claims.unwanted();
        unwanted.retain(|run| self.workers.is_connected(&run.worker));
        unwanted
    }

    /// Takes the claims of what was stopped from workers that have not said so: the next coordinator tells them.
    async fn give_up_claims(&self) {
        for run in self.claims.unwanted() {
            tracing::info!(worker_id = %run.worker, key = %run.held.claim.key, "a stopped step's claim is given up");
            if let Err(error) = self.store.release(&run.held).await {
                tracing::error!(%error, "a claim could not be given up; its step goes on until the next coordinator stops it");
            }
        }
    }
}
