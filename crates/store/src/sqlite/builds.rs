//! Builds: what the coordinator writes.

use async_trait::async_trait;
use buildyard_model::{BuildId, Digest};
use sqlx::SqliteConnection;

use super::SqliteStore;
use super::columns::{During, capped, digest, to_json};
use super::db::commit;
use super::history::outcome_text;
use super::results::{count, delete_results_only_for};
use super::steps::insert_steps;
use crate::{
    BuildOutcome, BuildRecord, Builds, Finished, StepRecord, StoreError, TEXTS_CAP, UnixMillis,
};

#[async_trait]
impl Builds for SqliteStore {
    async fn start_build(&self, build: &BuildRecord) -> Result<(), StoreError> {
        let mut tx = self.db.write().await?;
        if !insert_build(&mut tx, build).await? {
            return Err(StoreError::BuildExists(build.id.clone()));
        }
        commit(tx).await
    }

    async fn finish_build(&self, build: &BuildId, finished: &Finished) -> Result<bool, StoreError> {
        let mut tx = self.db.write().await?;
        let first = update_finished(&mut tx, build, finished).await?;
        if first {
            insert_steps(&mut tx, build, &finished.steps).await?;
        }
        delete_results_only_for(&mut tx, build).await?;
        commit(tx).await?;
        Ok(first)
    }

    async fn abandon_running(&self, now: UnixMillis) -> Result<usize, StoreError> {
        let mut tx = self.db.write().await?;
        let abandoned = update_abandoned(&mut tx, now).await?;
        delete_results_only_for_abandoned(&mut tx).await?;
        commit(tx).await?;
        Ok(abandoned)
    }

    async fn remove_builds(
        &self,
        before: UnixMillis,
        limit: u32,
    ) -> Result<Vec<Digest>, StoreError> {
        let mut tx = self.db.write().await?;
        let old = to_json(&select_old(&mut tx, before, limit).await?);
        let logs = select_logs_only_of(&mut tx, &old).await?;
        delete_builds(&mut tx, &old).await?;
        commit(tx).await?;
        logs.iter()
            .map(|log| digest("build_steps.log_blob", log))
            .collect()
    }
}

async fn insert_build(tx: &mut SqliteConnection, build: &BuildRecord) -> Result<bool, StoreError> {
    let platforms: Vec<String> = build.platforms.iter().map(ToString::to_string).collect();
    let done = sqlx::query(
        "INSERT INTO builds (id, scope, name, frontend, target, platforms, exports, started_at, outcome, \
         completed_at, error, response, steps, steps_cached, steps_emulated) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15) ON CONFLICT (id) DO NOTHING",
    )
    .bind(build.id.as_str())
    .bind(build.scope.as_str())
    .bind(capped(&build.name, TEXTS_CAP))
    .bind(&build.frontend)
    .bind(&build.target)
    .bind(to_json(&platforms))
    .bind(to_json(&build.exports))
    .bind(build.started.0)
    .bind(outcome_text(build.outcome))
    .bind(build.completed.map(|at| at.0))
    .bind(build.error.as_deref().map(|text| capped(text, TEXTS_CAP)))
    .bind(to_json(&build.response))
    .bind(build.steps)
    .bind(build.steps_cached)
    .bind(build.steps_emulated)
    .execute(tx)
    .await
    .during("recording a build")?;
    Ok(done.rows_affected() > 0)
}

async fn update_finished(
    tx: &mut SqliteConnection,
    id: &BuildId,
    finished: &Finished,
) -> Result<bool, StoreError> {
    let steps = |counts: fn(&StepRecord) -> bool| {
        let counted = finished.steps.iter().filter(|step| counts(step));
        u32::try_from(counted.count()).unwrap_or(u32::MAX)
    };
    let done = sqlx::query(
        "UPDATE builds SET outcome = ?2, completed_at = ?3, error = ?4, response = ?5, steps = ?6, steps_cached = ?7, \
         steps_emulated = ?8 WHERE id = ?1 AND outcome = 'running'",
    )
    .bind(id.as_str())
    .bind(outcome_text(finished.outcome))
    .bind(finished.completed.0)
    .bind(
        finished
            .error
            .as_deref()
            .map(|text| capped(text, TEXTS_CAP)),
    )
    .bind(to_json(&finished.response))
    .bind(steps(|_| true))
    .bind(steps(|step| step.cached))
    .bind(steps(|step| step.emulated))
    .execute(tx)
    .await
    .during("recording the end of a build")?;
    Ok(done.rows_affected() > 0)
}

async fn update_abandoned(tx: &mut SqliteConnection, now: UnixMillis) -> Result<usize, StoreError> {
    let done =
        sqlx::query("UPDATE builds SET outcome = ?1, completed_at = ?2 WHERE outcome = 'running'")
            .bind(outcome_text(BuildOutcome::Interrupted))
            .bind(now.0)
            .execute(tx)
            .await
            .during("marking interrupted builds")?;
    count(done.rows_affected())
}

async fn delete_results_only_for_abandoned(tx: &mut SqliteConnection) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM results WHERE only_for <> ''")
        .execute(tx)
        .await
        .during("forgetting the results of interrupted builds")?;
    Ok(())
}

async fn select_old(
    tx: &mut SqliteConnection,
    before: UnixMillis,
    limit: u32,
) -> Result<Vec<String>, StoreError> {
    sqlx::query_scalar(
        "SELECT id FROM builds WHERE started_at < ?1 AND outcome <> 'running' ORDER BY started_at, id LIMIT ?2",
    )
    .bind(before.0)
    .bind(limit)
    .fetch_all(tx)
    .await
    .during("looking for old builds")
}

async fn select_logs_only_of(
    tx: &mut SqliteConnection,
    builds: &str,
) -> Result<Vec<Vec<u8>>, StoreError> {
    sqlx::query_scalar(
        "SELECT DISTINCT log_blob FROM build_steps AS old \
         WHERE build IN (SELECT value FROM json_each(?1)) AND log_blob IS NOT NULL \
         AND NOT EXISTS (SELECT 1 FROM results WHERE results.log = old.log_blob) \
         AND NOT EXISTS (SELECT 1 FROM build_steps AS kept WHERE kept.log_blob = old.log_blob \
                         AND kept.build NOT IN (SELECT value FROM json_each(?1)))",
    )
    .bind(builds)
    .fetch_all(tx)
    .await
    .during("looking for the logs of old builds")
}

async fn delete_builds(tx: &mut SqliteConnection, builds: &str) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM builds WHERE id IN (SELECT value FROM json_each(?1))")
        .bind(builds)
        .execute(tx)
        .await
        .during("removing old builds")?;
    Ok(())
}
