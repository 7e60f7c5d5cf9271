//! Fills a farm's cache index through the store's own operations, as so many steps would have.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use buildyard_model::{
    BuildId, Chain, Digest, JobId, LayerId, Scope, StepDigest, StepKey, WorkerId,
};
use buildyard_store::{
    Claim, ClaimKey, ClaimedBy, Claims, Completion, HeldClaim, LayerRecord, Layers, Pulled, Source,
    SqliteStore, StepResult, UnixMillis,
};

/// The scope of builds.
const SCOPE: &str = "default";
/// Layers recorded in one transaction.
const BATCH: usize = 1_000;
/// How long the claims last; each is completed at once.
const TTL: Duration = Duration::from_secs(30);

/// Adds the entries `from..to` to the database of a farm that does not run.
///
/// # Errors
/// The database is not there, or the store refuses.
pub(crate) fn fill(database: &Path, from: usize, to: usize) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("a runtime for the store")?;
    runtime.block_on(async {
        let store = SqliteStore::open(database).await?;
        for batch in (from..to).step_by(BATCH) {
            let entries = batch..to.min(batch + BATCH);
            let layers: Vec<LayerRecord> = entries.clone().map(layer).collect();
            store.put_layers(&layers).await?;
            for number in entries {
                record(&store, number).await?;
            }
        }
        store.close().await;
        Ok(())
    })
}

async fn record(store: &SqliteStore, number: usize) -> anyhow::Result<()> {
    let claim = ClaimKey::shared(
        StepKey(Digest::of(format!("key {number}"))),
        Scope::new(SCOPE),
    );
    let result = result(number);
    let by = ClaimedBy {
        worker: result.worker.clone(),
        job: JobId::new("bench"),
        build: result.build.clone(),
        step: StepDigest(Digest::of(format!("step {number}"))),
    };
    match store.claim_step(&claim, &by, now(), TTL).await? {
        Claim::Done(_) => Ok(()),
        Claim::Held { by, .. } => bail!("entry {number} is claimed by {by:?}"),
        Claim::Run { generation } => {
            let held = HeldClaim { claim, generation };
            match store.complete(&held, &result, &[], now()).await? {
                Completion::Accepted => Ok(()),
                Completion::Stale => bail!("the claim on entry {number} was given away"),
            }
        }
    }
}

/// A layer that was pulled and never read: it has no bytes that anybody could miss.
fn layer(number: usize) -> LayerRecord {
    LayerRecord {
        id: layer_id(number),
        toc: None,
        toc_size: 0,
        flats: Vec::new(),
        pulled: Some(Pulled {
            blob: Digest::of(format!("blob {number}")),
            size: 1_000_000,
            media_type: "application/vnd.oci.image.layer.v1.tar+gzip".to_owned(),
            sources: vec![Source {
                registry: "registry.invalid".to_owned(),
                repository: "bench".to_owned(),
            }],
        }),
        made_by: None,
        published: false,
        created: now(),
    }
}

fn layer_id(number: usize) -> LayerId {
    LayerId(Digest::of(format!("layer {number}")))
}

fn result(number: usize) -> StepResult {
    StepResult {
        outputs: vec![Some(Chain::new(vec![layer_id(number)]))],
        created: now(),
        duration: Duration::from_secs(1),
        worker: WorkerId::new("bench"),
        platform: None,
        emulated: false,
        build: BuildId::new("bench"),
        name: format!("[stage-0 2/2] RUN make part-{number}"),
        log: None,
    }
}

fn now() -> UnixMillis {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let millis = since.map_or(0, |since| since.as_millis());
    UnixMillis(i64::try_from(millis).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use buildyard_store::Results;

    use super::*;

    #[test]
    fn entries_are_found() {
        let dir = tempfile::tempdir().expect("a folder");
        let database = dir.path().join("farm.db");
        fill(&database, 0, 5).expect("filled");
        fill(&database, 3, 8).expect("filled again");
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let found = runtime.block_on(async {
            let store = SqliteStore::open(&database).await.expect("opened");
            let keys: Vec<StepKey> = (0..9)
                .map(|number| StepKey(Digest::of(format!("key {number}"))))
                .collect();
            let found = store.lookup(&keys, &Scope::new(SCOPE), now()).await;
            found.expect("looked up").iter().flatten().count()
        });
        assert_eq!(found, 8);
    }
}
