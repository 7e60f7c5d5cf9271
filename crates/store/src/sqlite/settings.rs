//! Settings.

use async_trait::async_trait;
use buildyard_model::Platform;
use sqlx::SqliteConnection;

use super::SqliteStore;
use super::columns::{During, parse};
use super::db::commit;
use crate::{Settings, StoreError};

const BUILD_PLATFORM: &str = "build_platform";
const FARM_ID: &str = "farm_id";

#[async_trait]
impl Settings for SqliteStore {
    async fn build_platform(&self, default: &Platform) -> Result<Platform, StoreError> {
        let mut tx = self.db.write().await?;
        let stored = insert_default(&mut tx, BUILD_PLATFORM, &default.to_string()).await?;
        commit(tx).await?;
        parse("settings.build_platform", &stored)
    }

    async fn set_build_platform(&self, platform: &Platform) -> Result<(), StoreError> {
        let mut tx = self.db.write().await?;
        replace(&mut tx, BUILD_PLATFORM, &platform.to_string()).await?;
        commit(tx).await
    }

    async fn farm_id(&self, candidate: &str) -> Result<String, StoreError> {
        let mut tx = self.db.write().await?;
        let stored = insert_default(&mut tx, FARM_ID, candidate).await?;
        commit(tx).await?;
        Ok(stored)
    }

    async fn schema_version(&self) -> Result<i64, StoreError> {
        let mut tx = self.db.read().await?;
        select_version(&mut tx).await
    }
}

/// What is stored under `name`; `default` from now on if nothing was.
async fn insert_default(
    tx: &mut SqliteConnection,
    name: &str,
    default: &str,
) -> Result<String, StoreError> {
    sqlx::query_scalar(
        "INSERT INTO settings (name, value) VALUES (?1, ?2) \
         ON CONFLICT (name) DO UPDATE SET value = settings.value RETURNING value",
    )
    .bind(name)
    .bind(default)
    .fetch_one(tx)
    .await
    .during("reading a setting")
}

async fn replace(tx: &mut SqliteConnection, name: &str, value: &str) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO settings (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    )
    .bind(name)
    .bind(value)
    .execute(tx)
    .await
    .during("changing a setting")?;
    Ok(())
}

async fn select_version(tx: &mut SqliteConnection) -> Result<i64, StoreError> {
    sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM _sqlx_migrations")
        .fetch_one(tx)
        .await
        .during("reading the schema's version")
}
