//! Results.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use buildyard_model::{BuildId, LayerId, Scope, StepKey, WorkerId};
use serde_json::json;
use sqlx::SqliteConnection;

use super::SqliteStore;
use super::chains;
use super::columns::{During, corrupt, digest, hex_list, in_order, int, parse, to_json, uint};
use super::db::commit;
use crate::{ClaimKey, Generation, Results, StepResult, StoreError, UnixMillis};

#[async_trait]
impl Results for SqliteStore {
    async fn lookup(
        &self,
        keys: &[StepKey],
        scope: &Scope,
        now: UnixMillis,
    ) -> Result<Vec<Option<Arc<StepResult>>>, StoreError> {
        let mut tx = self.db.read().await?;
        let named = select_generations(&mut tx, keys, scope).await?;
        let mut found = HashMap::with_capacity(named.len());
        let mut unread = Vec::new();
        for row in named {
            let (key, generation) = (row.key()?, row.generation()?);
            self.uses.note(key, scope, now);
            match self.decoded.get(generation) {
                Some(result) => drop(found.insert(key, result)),
                None => unread.push(row.id),
            }
        }
        if !unread.is_empty() {
            let rows = select_results(&mut tx, &unread).await?;
            let outputs = rows.iter().map(|row| row.outputs.as_str());
            let chains = chains::read(&mut tx, outputs).await?;
            for row in rows {
                let (key, generation) = (row.key()?, row.generation()?);
                let result = Arc::new(row.result(&chains)?);
                self.decoded.keep(generation, result.clone());
                found.insert(key, result);
            }
        }
        Ok(in_order(keys.iter().copied(), &found))
    }

    async fn flush_uses(&self) -> Result<usize, StoreError> {
        let noted = self.uses.take();
        if noted.is_empty() {
            return Ok(0);
        }
        let rows: Vec<_> = noted
            .iter()
            .map(|((key, scope), at)| json!({"key": key.digest().hex(), "scope": scope, "at": at}))
            .collect();
        let uses = to_json(&rows);
        let last = noted.values().copied().max().unwrap_or(UnixMillis(0));
        let mut tx = self.db.write().await?;
        update_results_used(&mut tx, &uses).await?;
        update_flats_used(&mut tx, &uses, last).await?;
        update_tocs_used(&mut tx, &uses, last).await?;
        commit(tx).await?;
        Ok(noted.len())
    }

    async fn forget(&self, key: StepKey, scope: &Scope) -> Result<bool, StoreError> {
        let mut tx = self.db.write().await?;
        let forgotten = delete_result(&mut tx, key, scope).await?;
        commit(tx).await?;
        Ok(forgotten)
    }

    async fn forget_layer(&self, layer: LayerId) -> Result<usize, StoreError> {
        let mut tx = self.db.write().await?;
        let forgotten = delete_results_with(&mut tx, &[layer]).await?;
        commit(tx).await?;
        Ok(forgotten)
    }

    async fn forget_unpublished_of(&self, worker: &WorkerId) -> Result<Vec<String>, StoreError> {
        let mut tx = self.db.write().await?;
        let mut names = delete_unpublished_of(&mut tx, worker).await?;
        commit(tx).await?;
        names.sort();
        names.dedup();
        names.truncate(1000);
        Ok(names)
    }

    async fn forget_unused(&self, before: UnixMillis, limit: u32) -> Result<usize, StoreError> {
        let mut tx = self.db.write().await?;
        let forgotten = delete_unused(&mut tx, before, limit).await?;
        chains::delete_loose(&mut tx).await?;
        commit(tx).await?;
        Ok(forgotten)
    }
}

/// Which result a key has.
#[derive(Debug, sqlx::FromRow)]
struct NamedRow {
    id: i64,
    key: Vec<u8>,
    generation: i64,
}

impl NamedRow {
    fn key(&self) -> Result<StepKey, StoreError> {
        digest("results.key", &self.key).map(StepKey)
    }

    fn generation(&self) -> Result<Generation, StoreError> {
        uint("results.generation", self.generation).map(Generation)
    }
}

/// A row of `results`.
#[derive(Debug, sqlx::FromRow)]
struct ResultRow {
    key: Vec<u8>,
    generation: i64,
    outputs: String,
    created_at: i64,
    duration_ms: i64,
    worker: String,
    platform: Option<String>,
    emulated: bool,
    build: String,
    name: String,
    log: Option<Vec<u8>>,
}

impl ResultRow {
    fn key(&self) -> Result<StepKey, StoreError> {
        digest("results.key", &self.key).map(StepKey)
    }

    fn generation(&self) -> Result<Generation, StoreError> {
        uint("results.generation", self.generation).map(Generation)
    }

    fn result(self, chains: &chains::Read) -> Result<StepResult, StoreError> {
        Ok(StepResult {
            outputs: chains.outputs(&self.outputs)?,
            created: UnixMillis(self.created_at),
            duration: Duration::from_millis(uint("results.duration_ms", self.duration_ms)?),
            worker: WorkerId::new(self.worker),
            platform: self
                .platform
                .as_deref()
                .map(|text| parse("results.platform", text))
                .transpose()?,
            emulated: self.emulated,
            build: BuildId::new(self.build),
            name: self.name,
            log: self
                .log
                .as_deref()
                .map(|bytes| digest("results.log", bytes))
                .transpose()?,
        })
    }
}

async fn select_generations(
    tx: &mut SqliteConnection,
    keys: &[StepKey],
    scope: &Scope,
) -> Result<Vec<NamedRow>, StoreError> {
    let keys = keys.iter().collect::<HashSet<_>>();
    sqlx::query_as(
        "SELECT results.id, results.key, results.generation FROM json_each(?1) AS asked \
         JOIN results ON results.key = unhex(asked.value) AND results.scope = ?2 AND results.only_for = ''",
    )
    .bind(hex_list(keys.into_iter().map(|key| key.0.as_bytes())))
    .bind(scope.as_str())
    .fetch_all(&mut *tx)
    .await
    .during("looking up results")
}

async fn select_results(
    tx: &mut SqliteConnection,
    ids: &[i64],
) -> Result<Vec<ResultRow>, StoreError> {
    sqlx::query_as(
        "SELECT results.* FROM json_each(?1) AS asked JOIN results ON results.id = asked.value",
    )
    .bind(to_json(&ids))
    .fetch_all(tx)
    .await
    .during("reading results")
}

/// The result recorded under exactly this claim, and the generation that recorded it.
pub(super) async fn select_result(
    tx: &mut SqliteConnection,
    claim: &ClaimKey,
) -> Result<Option<(Generation, StepResult)>, StoreError> {
    let row: Option<ResultRow> =
        sqlx::query_as("SELECT * FROM results WHERE key = ?1 AND scope = ?2 AND only_for = ?3")
            .bind(&claim.key.0.as_bytes()[..])
            .bind(claim.scope.as_str())
            .bind(only_for(claim))
            .fetch_optional(&mut *tx)
            .await
            .during("looking up a claim's result")?;
    let Some(row) = row else {
        return Ok(None);
    };
    let chains = chains::read(tx, std::iter::once(row.outputs.as_str())).await?;
    Ok(Some((row.generation()?, row.result(&chains)?)))
}

/// Records a result in the place of the one before.
pub(super) async fn replace_result(
    tx: &mut SqliteConnection,
    claim: &ClaimKey,
    generation: Generation,
    result: &StepResult,
    now: UnixMillis,
) -> Result<(), StoreError> {
    delete_exactly(tx, claim).await?;
    let outputs = chains::insert_chains(tx, &result.outputs).await?;
    let id = insert_result(tx, claim, generation, result, &outputs, now).await?;
    chains::insert_result_chains(tx, id, &outputs).await
}

/// How a claim's `only_for` is stored: part of a unique key, where NULL would not do.
pub(super) fn only_for(claim: &ClaimKey) -> &str {
    claim.only_for.as_ref().map_or("", BuildId::as_str)
}

async fn delete_exactly(tx: &mut SqliteConnection, claim: &ClaimKey) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM results WHERE key = ?1 AND scope = ?2 AND only_for = ?3")
        .bind(&claim.key.0.as_bytes()[..])
        .bind(claim.scope.as_str())
        .bind(only_for(claim))
        .execute(tx)
        .await
        .during("replacing a result")?;
    Ok(())
}

async fn insert_result(
    tx: &mut SqliteConnection,
    claim: &ClaimKey,
    generation: Generation,
    result: &StepResult,
    outputs: &str,
    now: UnixMillis,
) -> Result<i64, StoreError> {
    let duration = u64::try_from(result.duration.as_millis()).unwrap_or(u64::MAX);
    sqlx::query_scalar(
        "INSERT INTO results (key, scope, only_for, generation, outputs, created_at, duration_ms, worker, platform, \
         emulated, build, name, log, used_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14) \
         RETURNING id",
    )
    .bind(&claim.key.0.as_bytes()[..])
    .bind(claim.scope.as_str())
    .bind(only_for(claim))
    .bind(int(generation.0))
    .bind(outputs)
    .bind(result.created.0)
    .bind(int(duration))
    .bind(result.worker.as_str())
    .bind(result.platform.as_ref().map(ToString::to_string))
    .bind(result.emulated)
    .bind(result.build.as_str())
    .bind(&result.name)
    .bind(result.log.as_ref().map(|log| &log.as_bytes()[..]))
    .bind(now.0)
    .fetch_one(tx)
    .await
    .during("recording a result")
}

async fn delete_result(
    tx: &mut SqliteConnection,
    key: StepKey,
    scope: &Scope,
) -> Result<bool, StoreError> {
    let done = sqlx::query("DELETE FROM results WHERE key = ?1 AND scope = ?2 AND only_for = ''")
        .bind(&key.0.as_bytes()[..])
        .bind(scope.as_str())
        .execute(tx)
        .await
        .during("forgetting a result")?;
    Ok(done.rows_affected() > 0)
}

/// Removes every result that contains one of `layers`, also those that are only for one build.
pub(super) async fn delete_results_with(
    tx: &mut SqliteConnection,
    layers: &[LayerId],
) -> Result<usize, StoreError> {
    let done = sqlx::query(
        "WITH RECURSIVE base (id) AS (SELECT chains.id FROM json_each(?1) AS lost \
             JOIN chains ON chains.layer = unhex(lost.value)), above (id) AS (SELECT id FROM base UNION SELECT chains.id FROM above JOIN chains ON chains.below = above.id) \
         DELETE FROM results WHERE id IN (SELECT result_chains.result FROM above \
             JOIN result_chains ON result_chains.chain = above.id)",
    )
    .bind(hex_list(layers.iter().map(|layer| layer.0.as_bytes())))
    .execute(tx)
    .await
    .during("forgetting the results of a lost layer")?;
    count(done.rows_affected())
}

/// Removes the results that a build with `--no-cache` had for itself.
pub(super) async fn delete_results_only_for(
    tx: &mut SqliteConnection,
    build: &BuildId,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM results WHERE only_for = ?1 AND only_for <> ''")
        .bind(build.as_str())
        .execute(tx)
        .await
        .during("forgetting the results of one build")?;
    Ok(())
}

async fn delete_unpublished_of(
    tx: &mut SqliteConnection,
    worker: &WorkerId,
) -> Result<Vec<String>, StoreError> {
    sqlx::query_scalar(
        "WITH RECURSIVE base (id) AS (SELECT chains.id FROM layers JOIN chains ON chains.layer = layers.id \
             WHERE layers.published = 0 AND layers.made_by = ?1), above (id) AS (SELECT id FROM base UNION SELECT chains.id FROM above JOIN chains ON chains.below = above.id) \
         DELETE FROM results WHERE id IN (SELECT result_chains.result FROM above \
             JOIN result_chains ON result_chains.chain = above.id) RETURNING name",
    )
    .bind(worker.as_str())
    .fetch_all(tx)
    .await
    .during("forgetting what a lost worker had not published")
}

async fn delete_unused(
    tx: &mut SqliteConnection,
    before: UnixMillis,
    limit: u32,
) -> Result<usize, StoreError> {
    let done = sqlx::query(
        "DELETE FROM results WHERE id IN \
         (SELECT id FROM results WHERE used_at < ?1 ORDER BY used_at, id LIMIT ?2)",
    )
    .bind(before.0)
    .bind(limit)
    .execute(tx)
    .await
    .during("forgetting unused results")?;
    count(done.rows_affected())
}

async fn update_results_used(tx: &mut SqliteConnection, uses: &str) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE results SET used_at = max(used_at, noted.value ->> 'at') FROM json_each(?1) AS noted \
         WHERE results.key = unhex(noted.value ->> 'key') AND results.scope = noted.value ->> 'scope' \
         AND results.only_for = ''",
    )
    .bind(uses)
    .execute(tx)
    .await
    .during("noting the use of results")?;
    Ok(())
}

/// A result's layers are used when it is: their flat files … What results have in common is noted once, at the latest of the uses.
async fn update_flats_used(
    tx: &mut SqliteConnection,
    uses: &str,
    last: UnixMillis,
) -> Result<(), StoreError> {
    sqlx::query(
        "WITH RECURSIVE part (id) AS (SELECT result_chains.chain FROM json_each(?1) AS noted \
             JOIN results ON results.key = unhex(noted.value ->> 'key') AND results.scope = noted.value ->> 'scope' \
             JOIN result_chains ON result_chains.result = results.id \
             UNION SELECT chains.below FROM part JOIN chains ON chains.id = part.id WHERE chains.below IS NOT NULL) \
         UPDATE usage SET used_at = max(usage.used_at, ?2) FROM \
             (SELECT DISTINCT lower(hex(layer_flats.flat)) AS id FROM part JOIN chains ON chains.id = part.id \
              JOIN layer_flats ON layer_flats.layer = chains.layer) AS used \
         WHERE usage.kind = 'flat' AND usage.id = used.id",
    )
    .bind(uses)
    .bind(last.0)
    .execute(tx)
    .await
    .during("noting the use of flat files")?;
    Ok(())
}

/// … and the blobs with their TOCs.
async fn update_tocs_used(
    tx: &mut SqliteConnection,
    uses: &str,
    last: UnixMillis,
) -> Result<(), StoreError> {
    sqlx::query(
        "WITH RECURSIVE part (id) AS (SELECT result_chains.chain FROM json_each(?1) AS noted \
             JOIN results ON results.key = unhex(noted.value ->> 'key') AND results.scope = noted.value ->> 'scope' \
             JOIN result_chains ON result_chains.result = results.id \
             UNION SELECT chains.below FROM part JOIN chains ON chains.id = part.id WHERE chains.below IS NOT NULL) \
         UPDATE usage SET used_at = max(usage.used_at, ?2) FROM \
             (SELECT DISTINCT 'sha256:' || lower(hex(layers.toc)) AS id FROM part JOIN chains ON chains.id = part.id \
              JOIN layers ON layers.id = chains.layer) AS used \
         WHERE usage.kind = 'blob' AND usage.id = used.id",
    )
    .bind(uses)
    .bind(last.0)
    .execute(tx)
    .await
    .during("noting the use of TOCs")?;
    Ok(())
}

/// Rows counted by the database.
pub(super) fn count(rows: u64) -> Result<usize, StoreError> {
    usize::try_from(rows).map_err(|_| corrupt("a count of rows", rows))
}
