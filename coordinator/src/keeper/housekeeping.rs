//! Old records: results that nobody uses, builds long past, workers that never came back.

use std::time::Duration;

use buildyard_store::Item;

use super::{Keeper, KeeperError, now};

/// Records removed in one go, so that nobody waits long for the database.
const AT_ONCE: u32 = 500;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// What is forgotten when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ages {
    /// Results that nobody has used for so long.
    pub results: Duration,
    /// Builds that began so long ago, with their logs.
    pub builds: Duration,
    /// Workers that were not heard of for so long.
    pub workers: Duration,
}

impl Default for Ages {
    fn default() -> Self {
        Self {
            results: 60 * DAY,
            builds: 90 * DAY,
            workers: 30 * DAY,
        }
    }
}

impl Keeper {
    /// Removes records that are past their age.
    pub(super) async fn put_records_in_order(&self) -> Result<(), KeeperError> {
        let mut results = 0;
        loop {
            let gone = self
                .store
                .forget_unused(now().minus(self.ages.results), AT_ONCE)
                .await?;
            results += gone;
            if gone < AT_ONCE as usize {
                break;
            }
        }
        let logs = self
            .store
            .remove_builds(now().minus(self.ages.builds), AT_ONCE)
            .await?;
        for log in &logs {
            self.blobs.delete(*log).await?;
        }
        let logs: Vec<Item> = logs.into_iter().map(Item::blob).collect();
        self.store.remove_usage(&logs).await?;
        let workers = self
            .store
            .forget_workers(now().minus(self.ages.workers))
            .await?;
        if results + workers + logs.len() > 0 {
            tracing::info!(
                results,
                workers,
                logs = logs.len(),
                "old records are removed"
            );
        }
        Ok(())
    }
}
