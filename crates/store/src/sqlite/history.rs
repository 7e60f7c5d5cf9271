//! The history of builds as people read it.

use std::collections::BTreeMap;

use async_trait::async_trait;
use buildyard_model::{BuildId, Platform, Scope, StepDigest};
use sqlx::SqliteConnection;

use super::SqliteStore;
use super::columns::{During, corrupt, from_json, parse};
use super::steps::{select_log, select_steps};
use crate::{
    BuildOutcome, BuildRecord, History, PageStart, StepLog, StepRecord, StoreError, UnixMillis,
};

#[async_trait]
impl History for SqliteStore {
    async fn list_builds(
        &self,
        limit: u32,
        after: Option<&PageStart>,
    ) -> Result<Vec<BuildRecord>, StoreError> {
        let mut tx = self.db.read().await?;
        let rows = select_builds(&mut tx, limit, after).await?;
        rows.into_iter().map(BuildRow::record).collect()
    }

    async fn build(&self, id: &BuildId) -> Result<Option<BuildRecord>, StoreError> {
        let mut tx = self.db.read().await?;
        select_build(&mut tx, id)
            .await?
            .map(BuildRow::record)
            .transpose()
    }

    async fn steps(&self, build: &BuildId) -> Result<Vec<StepRecord>, StoreError> {
        let mut tx = self.db.read().await?;
        select_steps(&mut tx, build).await
    }

    async fn log(&self, build: &BuildId, step: StepDigest) -> Result<Option<StepLog>, StoreError> {
        let mut tx = self.db.read().await?;
        select_log(&mut tx, build, step).await
    }
}

const OUTCOMES: [(BuildOutcome, &str); 5] = [
    (BuildOutcome::Running, "running"),
    (BuildOutcome::Succeeded, "succeeded"),
    (BuildOutcome::Failed, "failed"),
    (BuildOutcome::Cancelled, "cancelled"),
    (BuildOutcome::Interrupted, "interrupted"),
];

pub(super) fn outcome_text(outcome: BuildOutcome) -> &'static str {
    let known = OUTCOMES.iter().find(|(known, _)| *known == outcome);
    known.expect("every outcome is in the table").1
}

/// A row of `builds`.
#[derive(Debug, sqlx::FromRow)]
struct BuildRow {
    id: String,
    scope: String,
    name: String,
    frontend: String,
    target: String,
    platforms: String,
    exports: String,
    started_at: i64,
    outcome: String,
    completed_at: Option<i64>,
    error: Option<String>,
    response: String,
    steps: u32,
    steps_cached: u32,
    steps_emulated: u32,
}

impl BuildRow {
    fn record(self) -> Result<BuildRecord, StoreError> {
        let outcome = OUTCOMES.iter().find(|(_, text)| *text == self.outcome);
        let (outcome, _) = outcome.ok_or_else(|| corrupt("builds.outcome", &self.outcome))?;
        let platforms: Vec<String> = from_json("builds.platforms", &self.platforms)?;
        let platforms = platforms.iter().map(|text| parse("builds.platforms", text));
        let platforms = platforms.collect::<Result<Vec<Platform>, _>>()?;
        let response: BTreeMap<String, String> = from_json("builds.response", &self.response)?;
        Ok(BuildRecord {
            id: BuildId::new(self.id),
            scope: Scope::new(self.scope),
            name: self.name,
            frontend: self.frontend,
            target: self.target,
            platforms,
            exports: from_json("builds.exports", &self.exports)?,
            started: UnixMillis(self.started_at),
            outcome: *outcome,
            completed: self.completed_at.map(UnixMillis),
            error: self.error,
            response,
            steps: self.steps,
            steps_cached: self.steps_cached,
            steps_emulated: self.steps_emulated,
        })
    }
}

async fn select_builds(
    tx: &mut SqliteConnection,
    limit: u32,
    after: Option<&PageStart>,
) -> Result<Vec<BuildRow>, StoreError> {
    sqlx::query_as(
        "SELECT * FROM builds WHERE ?2 IS NULL OR (started_at, id) < (?2, ?3) \
         ORDER BY started_at DESC, id DESC LIMIT ?1",
    )
    .bind(limit)
    .bind(after.map(|after| after.started.0))
    .bind(after.map(|after| after.id.as_str()))
    .fetch_all(tx)
    .await
    .during("listing builds")
}

async fn select_build(
    tx: &mut SqliteConnection,
    id: &BuildId,
) -> Result<Option<BuildRow>, StoreError> {
    sqlx::query_as("SELECT * FROM builds WHERE id = ?1")
        .bind(id.as_str())
        .fetch_optional(tx)
        .await
        .during("reading a build")
}
