//! Claims.

use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use buildyard_model::{BuildId, JobId, Scope, StepDigest, StepKey, WorkerId};
use serde_json::json;
use sqlx::SqliteConnection;

use super::SqliteStore;
use super::columns::{During, digest, int, to_json, uint};
use super::db::commit;
use super::layers::put_layer;
use super::results::{only_for, replace_result, select_result};
use crate::{
    Claim, ClaimKey, ClaimedBy, Claims, Completion, Generation, HeldClaim, Lapsed, LayerRecord,
    StepResult, StoreError, UnixMillis,
};

#[async_trait]
impl Claims for SqliteStore {
    async fn claim_step(
        &self,
        claim: &ClaimKey,
        by: &ClaimedBy,
        now: UnixMillis,
        ttl: Duration,
    ) -> Result<Claim, StoreError> {
        let mut tx = self.db.write().await?;
        if let Some((_, result)) = select_result(&mut tx, claim).await? {
            self.uses.note(claim.key, &claim.scope, now);
            return Ok(Claim::Done(Box::new(result)));
        }
        let held = select_claim(&mut tx, claim)
            .await?
            .map(ClaimRow::lapsed)
            .transpose()?;
        let generation = match held {
            Some((held, until)) if !is_same_asker(&held.by, by) && until > now => {
                return Ok(Claim::Held {
                    by: held.by,
                    generation: held.held.generation,
                    until,
                });
            }
            Some((held, _)) if is_same_asker(&held.by, by) => held.held.generation,
            _ => next_generation(&mut tx).await?,
        };
        replace_claim(&mut tx, claim, generation, by, now.plus(ttl)).await?;
        commit(tx).await?;
        Ok(Claim::Run { generation })
    }

    async fn renew(
        &self,
        worker: &WorkerId,
        held: &[HeldClaim],
        now: UnixMillis,
        ttl: Duration,
    ) -> Result<Vec<HeldClaim>, StoreError> {
        let mut tx = self.db.write().await?;
        let renewed = update_until(&mut tx, worker, held, now.plus(ttl)).await?;
        commit(tx).await?;
        Ok(held
            .iter()
            .filter(|held| !renewed.contains(&held.generation))
            .cloned()
            .collect())
    }

    async fn complete(
        &self,
        held: &HeldClaim,
        result: &StepResult,
        layers: &[LayerRecord],
        now: UnixMillis,
    ) -> Result<Completion, StoreError> {
        let mut tx = self.db.write().await?;
        if !delete_claim(&mut tx, held, Some(&result.worker)).await? {
            let recorded = select_result(&mut tx, &held.claim).await?;
            let repeated = recorded.is_some_and(|(generation, _)| generation == held.generation);
            return Ok(if repeated {
                Completion::Accepted
            } else {
                Completion::Stale
            });
        }
        for layer in layers {
            put_layer(&mut tx, layer).await?;
        }
        replace_result(&mut tx, &held.claim, held.generation, result, now).await?;
        if held.claim.only_for.is_some() {
            let shared = ClaimKey::shared(held.claim.key, held.claim.scope.clone());
            replace_result(&mut tx, &shared, held.generation, result, now).await?;
        }
        commit(tx).await?;
        Ok(Completion::Accepted)
    }

    async fn release(&self, held: &HeldClaim) -> Result<bool, StoreError> {
        let mut tx = self.db.write().await?;
        let released = delete_claim(&mut tx, held, None).await?;
        commit(tx).await?;
        Ok(released)
    }

    async fn expire(
        &self,
        now: UnixMillis,
        forget_before: UnixMillis,
    ) -> Result<Vec<Lapsed>, StoreError> {
        let mut tx = self.db.write().await?;
        let rows = mark_lapsed(&mut tx, now).await?;
        delete_lapsed_before(&mut tx, forget_before).await?;
        commit(tx).await?;
        rows.into_iter().map(|row| Ok(row.lapsed()?.0)).collect()
    }

    async fn release_worker(
        &self,
        worker: &WorkerId,
        now: UnixMillis,
    ) -> Result<Vec<Lapsed>, StoreError> {
        let mut tx = self.db.write().await?;
        let rows = mark_lapsed_of(&mut tx, worker, now).await?;
        commit(tx).await?;
        rows.into_iter().map(|row| Ok(row.lapsed()?.0)).collect()
    }
}

/// The answer to its claim was lost and it asks again.
fn is_same_asker(holder: &ClaimedBy, asker: &ClaimedBy) -> bool {
    (&holder.worker, &holder.job, holder.step) == (&asker.worker, &asker.job, asker.step)
}

/// A row of `claims`.
#[derive(Debug, sqlx::FromRow)]
struct ClaimRow {
    key: Vec<u8>,
    scope: String,
    only_for: String,
    generation: i64,
    worker: String,
    job: String,
    build: String,
    step: Vec<u8>,
    until_at: i64,
}

impl ClaimRow {
    fn lapsed(self) -> Result<(Lapsed, UnixMillis), StoreError> {
        let claim = ClaimKey {
            key: StepKey(digest("claims.key", &self.key)?),
            scope: Scope::new(self.scope),
            only_for: (!self.only_for.is_empty()).then(|| BuildId::new(self.only_for)),
        };
        let generation = Generation(uint("claims.generation", self.generation)?);
        let by = ClaimedBy {
            worker: WorkerId::new(self.worker),
            job: JobId::new(self.job),
            build: BuildId::new(self.build),
            step: StepDigest(digest("claims.step", &self.step)?),
        };
        Ok((
            Lapsed {
                held: HeldClaim { claim, generation },
                by,
            },
            UnixMillis(self.until_at),
        ))
    }
}

async fn select_claim(
    tx: &mut SqliteConnection,
    claim: &ClaimKey,
) -> Result<Option<ClaimRow>, StoreError> {
    sqlx::query_as("SELECT * FROM claims WHERE key = ?1 AND scope = ?2 AND only_for = ?3")
        .bind(&claim.key.0.as_bytes()[..])
        .bind(claim.scope.as_str())
        .bind(only_for(claim))
        .fetch_optional(tx)
        .await
        .during("looking for a claim")
}

async fn next_generation(tx: &mut SqliteConnection) -> Result<Generation, StoreError> {
    let last: i64 = sqlx::query_scalar("UPDATE generations SET last = last + 1 RETURNING last")
        .fetch_one(tx)
        .await
        .during("numbering a claim")?;
    uint("generations.last", last).map(Generation)
}

async fn replace_claim(
    tx: &mut SqliteConnection,
    claim: &ClaimKey,
    generation: Generation,
    by: &ClaimedBy,
    until: UnixMillis,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT OR REPLACE INTO claims (key, scope, only_for, generation, worker, job, build, step, until_at, lapsed) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 0)",
    )
    .bind(&claim.key.0.as_bytes()[..])
    .bind(claim.scope.as_str())
    .bind(only_for(claim))
    .bind(int(generation.0))
    .bind(by.worker.as_str())
    .bind(by.job.as_str())
    .bind(by.build.as_str())
    .bind(&by.step.0.as_bytes()[..])
    .bind(until.0)
    .execute(tx)
    .await
    .during("giving a claim")?;
    Ok(())
}

/// Prolongs those of `held` that are still `worker`'s and returns their numbers, which are unique.
async fn update_until(
    tx: &mut SqliteConnection,
    worker: &WorkerId,
    held: &[HeldClaim],
    until: UnixMillis,
) -> Result<HashSet<Generation>, StoreError> {
    let shown: Vec<_> = held
        .iter()
        .map(|held| {
            json!({
                "key": held.claim.key.digest().hex(), "scope": held.claim.scope,
                "only_for": only_for(&held.claim), "generation": held.generation.0,
            })
        })
        .collect();
    let renewed: Vec<i64> = sqlx::query_scalar(
        "UPDATE claims SET until_at = max(until_at, ?3), lapsed = 0 FROM json_each(?1) AS shown \
         WHERE claims.key = unhex(shown.value ->> 'key') AND claims.scope = shown.value ->> 'scope' \
         AND claims.only_for = shown.value ->> 'only_for' AND claims.generation = shown.value ->> 'generation' \
         AND claims.worker = ?2 RETURNING claims.generation",
    )
    .bind(to_json(&shown))
    .bind(worker.as_str())
    .bind(until.0)
    .fetch_all(tx)
    .await
    .during("renewing claims")?;
    renewed
        .into_iter()
        .map(|number| uint("claims.generation", number).map(Generation))
        .collect()
}

async fn delete_claim(
    tx: &mut SqliteConnection,
    held: &HeldClaim,
    worker: Option<&WorkerId>,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "DELETE FROM claims WHERE key = ?1 AND scope = ?2 AND only_for = ?3 AND generation = ?4 \
         AND (?5 IS NULL OR worker = ?5)",
    )
    .bind(&held.claim.key.0.as_bytes()[..])
    .bind(held.claim.scope.as_str())
    .bind(only_for(&held.claim))
    .bind(int(held.generation.0))
    .bind(worker.map(WorkerId::as_str))
    .execute(tx)
    .await
    .during("ending a claim")?;
    Ok(done.rows_affected() > 0)
}

async fn mark_lapsed(
    tx: &mut SqliteConnection,
    now: UnixMillis,
) -> Result<Vec<ClaimRow>, StoreError> {
    sqlx::query_as("UPDATE claims SET lapsed = 1 WHERE until_at <= ?1 AND lapsed = 0 RETURNING *")
        .bind(now.0)
        .fetch_all(tx)
        .await
        .during("looking for lapsed claims")
}

async fn delete_lapsed_before(
    tx: &mut SqliteConnection,
    before: UnixMillis,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM claims WHERE until_at < ?1 AND lapsed = 1")
        .bind(before.0)
        .execute(tx)
        .await
        .during("forgetting lapsed claims")?;
    Ok(())
}

async fn mark_lapsed_of(
    tx: &mut SqliteConnection,
    worker: &WorkerId,
    now: UnixMillis,
) -> Result<Vec<ClaimRow>, StoreError> {
    sqlx::query_as(
        "UPDATE claims SET lapsed = 1, until_at = min(until_at, ?2) WHERE worker = ?1 AND lapsed = 0 RETURNING *",
    )
    .bind(worker.as_str())
    .bind(now.0)
    .fetch_all(tx)
    .await
    .during("releasing a lost worker's claims")
}
