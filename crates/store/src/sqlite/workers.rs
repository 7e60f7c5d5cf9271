//! Known workers.

use async_trait::async_trait;
use buildyard_model::{Platform, WorkerId};
use sqlx::SqliteConnection;

use super::SqliteStore;
use super::columns::{During, from_json, parse, to_json};
use super::db::commit;
use super::results::count;
use crate::{StoreError, UnixMillis, WorkerRecord, Workers};

#[async_trait]
impl Workers for SqliteStore {
    async fn put_worker(&self, worker: &WorkerRecord) -> Result<(), StoreError> {
        let mut tx = self.db.write().await?;
        upsert_worker(&mut tx, worker).await?;
        commit(tx).await
    }

    async fn workers(&self) -> Result<Vec<WorkerRecord>, StoreError> {
        let mut tx = self.db.read().await?;
        select_workers(&mut tx)
            .await?
            .into_iter()
            .map(WorkerRow::record)
            .collect()
    }

    async fn forget_workers(&self, before: UnixMillis) -> Result<usize, StoreError> {
        let mut tx = self.db.write().await?;
        let forgotten = delete_workers(&mut tx, before).await?;
        commit(tx).await?;
        Ok(forgotten)
    }
}

/// A row of `workers`.
#[derive(Debug, sqlx::FromRow)]
struct WorkerRow {
    id: String,
    native: String,
    emulated: String,
    slots: u32,
    seen_at: i64,
}

impl WorkerRow {
    fn record(self) -> Result<WorkerRecord, StoreError> {
        Ok(WorkerRecord {
            id: WorkerId::new(self.id),
            native: platforms("workers.native", &self.native)?,
            emulated: platforms("workers.emulated", &self.emulated)?,
            slots: self.slots,
            seen: UnixMillis(self.seen_at),
        })
    }
}

fn platforms(column: &'static str, text: &str) -> Result<Vec<Platform>, StoreError> {
    let texts: Vec<String> = from_json(column, text)?;
    texts.iter().map(|text| parse(column, text)).collect()
}

fn platforms_json(platforms: &[Platform]) -> String {
    to_json(
        &platforms
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
    )
}

async fn upsert_worker(tx: &mut SqliteConnection, worker: &WorkerRecord) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO workers (id, native, emulated, slots, seen_at) VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT (id) DO UPDATE SET native = excluded.native, emulated = excluded.emulated, \
         slots = excluded.slots, seen_at = max(workers.seen_at, excluded.seen_at)",
    )
    .bind(worker.id.as_str())
    .bind(platforms_json(&worker.native))
    .bind(platforms_json(&worker.emulated))
    .bind(worker.slots)
    .bind(worker.seen.0)
    .execute(tx)
    .await
    .during("recording a worker")?;
    Ok(())
}

async fn select_workers(tx: &mut SqliteConnection) -> Result<Vec<WorkerRow>, StoreError> {
    sqlx::query_as("SELECT * FROM workers ORDER BY id")
        .fetch_all(tx)
        .await
        .during("listing workers")
}

async fn delete_workers(
    tx: &mut SqliteConnection,
    before: UnixMillis,
) -> Result<usize, StoreError> {
    let done = sqlx::query("DELETE FROM workers WHERE seen_at < ?1")
        .bind(before.0)
        .execute(tx)
        .await
        .during("forgetting workers")?;
    count(done.rows_affected())
}
