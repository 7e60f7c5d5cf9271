//! The steps of builds.

use buildyard_model::{BuildId, Platform, StepDigest, WorkerId};
use sqlx::SqliteConnection;

use super::columns::{During, capped, digest, parse, to_json};
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

/// Bytes of steps in one statement: a statement per step would cost more than the step, all of them may have long logs.
const AT_ONCE: usize = 1 << 20;

/// Records the steps of a build that has none yet.
pub(super) async fn insert_steps(
    tx: &mut SqliteConnection,
    build: &BuildId,
    steps: &[StepRecord],
) -> Result<(), StoreError> {
    let mut rows = String::from("[");
    for (position, step) in steps.iter().enumerate() {
        rows.push_str(if rows.len() > 1 { "," } else { "" });
        rows.push_str(&to_json(&row(position, step)));
        if rows.len() >= AT_ONCE {
            insert_rows(tx, build, &rows).await?;
            rows.truncate(1);
        }
    }
    match rows.len() {
        1 => Ok(()),
        _ => insert_rows(tx, build, &rows).await,
    }
}

/// A step as a list of its columns' values. JSON has no bytes: they are hex here.
fn row(position: usize, step: &StepRecord) -> impl serde::Serialize {
    let (log_blob, log_text) = match &step.log {
        Some(StepLog::Blob(digest)) => (Some(digest.hex()), None),
        Some(StepLog::Text(text)) => (None, Some(hex::encode(cap_log(text)))),
        None => (None, None),
    };
    (
        (step.step.0.hex(), position),
        capped(&step.name, TEXTS_CAP).to_owned(),
        step.platform.as_ref().map(ToString::to_string),
        step.worker.as_ref().map(|worker| worker.to_string()),
        (step.cached, step.emulated),
        (step.started, step.completed),
        step.error
            .as_deref()
            .map(|text| capped(text, TEXTS_CAP).to_owned()),
        (log_blob, log_text),
    )
}

async fn insert_rows(
    tx: &mut SqliteConnection,
    build: &BuildId,
    rows: &str,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT OR IGNORE INTO build_steps (build, step, position, name, platform, worker, cached, emulated, started_at, \
         completed_at, error, log_blob, log_text) \
         SELECT ?1, unhex(value ->> '$[0][0]'), value ->> '$[0][1]', value ->> '$[1]', value ->> '$[2]', value ->> '$[3]', \
         value ->> '$[4][0]', value ->> '$[4][1]', value ->> '$[5][0]', value ->> '$[5][1]', value ->> '$[6]', \
         unhex(value ->> '$[7][0]'), unhex(value ->> '$[7][1]') FROM json_each(?2 || ']')",
    )
    .bind(build.as_str())
    .bind(rows)
    .execute(tx)
    .await
    .during("recording the steps of a build")?;
    Ok(())
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
