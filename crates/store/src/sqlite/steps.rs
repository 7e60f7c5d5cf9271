//! The steps of builds.

use buildyard_model::{BuildId, Platform, StepDigest, WorkerId};
use sqlx::SqliteConnection;

use super::columns::{During, capped, digest, parse};
use crate::{StepLog, StepRecord, StoreError, TEXTS_CAP, UnixMillis, cap_log};

/// A row of `build_steps`, without its log.
#[derive(Debug, sqlx::FromRow)]
struct StepRow {
    step: Vec<u8>,
    name: String,
    platform: Option<String>,
    worker: Option<String>,
    cached: bool,
    emulated: bool,
    started_at: Option<i64>,
    completed_at: Option<i64>,
    error: Option<String>,
}

impl StepRow {
    fn record(self) -> Result<StepRecord, StoreError> {
        let platform: Option<Platform> = self
            .platform
            .as_deref()
            .map(|text| parse("build_steps.platform", text))
            .transpose()?;
        Ok(StepRecord {
            step: StepDigest(digest("build_steps.step", &self.step)?),
            name: self.name,
            platform,
            worker: self.worker.map(WorkerId::new),
            cached: self.cached,
            emulated: self.emulated,
            started: self.started_at.map(UnixMillis),
            completed: self.completed_at.map(UnixMillis),
            error: self.error,
            log: None,
        })
    }
}

/// The log of a row of `build_steps`.
#[derive(Debug, sqlx::FromRow)]
struct LogRow {
    log_blob: Option<Vec<u8>>,
    log_text: Option<Vec<u8>>,
}

/// Inserts nothing where the build is gone; [`count_steps`] finds that out. A log that was recorded stays until a new
/// one comes.
pub(super) async fn upsert_step(
    tx: &mut SqliteConnection,
    build: &BuildId,
    step: &StepRecord,
) -> Result<(), StoreError> {
    let (log_blob, log_text) = match &step.log {
        Some(StepLog::Blob(digest)) => (Some(&digest.as_bytes()[..]), None),
        Some(StepLog::Text(text)) => (None, Some(cap_log(text))),
        None => (None, None),
    };
    sqlx::query(
        "INSERT INTO build_steps (build, step, position, name, platform, worker, cached, emulated, started_at, \
         completed_at, error, log_blob, log_text) \
         SELECT id, ?2, (SELECT 1 + coalesce(max(position), 0) FROM build_steps WHERE build = ?1), \
         ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12 FROM builds WHERE id = ?1 \
         ON CONFLICT (build, step) DO UPDATE SET name = excluded.name, platform = excluded.platform, \
         worker = excluded.worker, cached = excluded.cached, emulated = excluded.emulated, \
         started_at = excluded.started_at, completed_at = excluded.completed_at, error = excluded.error, \
         log_blob = CASE WHEN excluded.log_blob IS NULL AND excluded.log_text IS NULL \
                    THEN build_steps.log_blob ELSE excluded.log_blob END, \
         log_text = CASE WHEN excluded.log_blob IS NULL AND excluded.log_text IS NULL \
                    THEN build_steps.log_text ELSE excluded.log_text END",
    )
    .bind(build.as_str())
    .bind(&step.step.0.as_bytes()[..])
    .bind(capped(&step.name, TEXTS_CAP))
    .bind(step.platform.as_ref().map(ToString::to_string))
    .bind(step.worker.as_ref().map(WorkerId::as_str))
    .bind(step.cached)
    .bind(step.emulated)
    .bind(step.started.map(|at| at.0))
    .bind(step.completed.map(|at| at.0))
    .bind(step.error.as_deref().map(|text| capped(text, TEXTS_CAP)))
    .bind(log_blob)
    .bind(log_text)
    .execute(tx)
    .await
    .during("recording a step of a build")?;
    Ok(())
}

/// Brings a build's counts up to date. Whether there is such a build.
pub(super) async fn count_steps(
    tx: &mut SqliteConnection,
    build: &BuildId,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "UPDATE builds SET (steps, steps_cached, steps_emulated) = \
         (SELECT count(*), coalesce(sum(cached), 0), coalesce(sum(emulated), 0) FROM build_steps WHERE build = ?1) \
         WHERE id = ?1",
    )
    .bind(build.as_str())
    .execute(tx)
    .await
    .during("counting a build's steps")?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn select_steps(
    tx: &mut SqliteConnection,
    build: &BuildId,
) -> Result<Vec<StepRecord>, StoreError> {
    let rows: Vec<StepRow> = sqlx::query_as(
        "SELECT step, name, platform, worker, cached, emulated, started_at, completed_at, error \
         FROM build_steps WHERE build = ?1 ORDER BY position",
    )
    .bind(build.as_str())
    .fetch_all(tx)
    .await
    .during("reading a build's steps")?;
    rows.into_iter().map(StepRow::record).collect()
}

pub(super) async fn select_log(
    tx: &mut SqliteConnection,
    build: &BuildId,
    step: StepDigest,
) -> Result<Option<StepLog>, StoreError> {
    let row: Option<LogRow> =
        sqlx::query_as("SELECT log_blob, log_text FROM build_steps WHERE build = ?1 AND step = ?2")
            .bind(build.as_str())
            .bind(&step.0.as_bytes()[..])
            .fetch_optional(tx)
            .await
            .during("reading a step's log")?;
    let Some(row) = row else { return Ok(None) };
    match (row.log_blob, row.log_text) {
        (Some(blob), _) => Ok(Some(StepLog::Blob(digest("build_steps.log_blob", &blob)?))),
        (None, text) => Ok(text.map(StepLog::Text)),
    }
}
