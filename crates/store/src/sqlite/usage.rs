//! Room and use.

use std::collections::HashMap;

use async_trait::async_trait;
use buildyard_model::{BuildId, LayerId};
use serde_json::json;
use sqlx::SqliteConnection;

use super::SqliteStore;
use super::columns::{During, corrupt, digest, int, to_json, uint};
use super::db::commit;
use crate::{Candidate, Item, ItemKind, Referrer, StoreError, UnixMillis, Usage};

#[async_trait]
impl Usage for SqliteStore {
    async fn record_usage(&self, items: &[(Item, u64)], now: UnixMillis) -> Result<(), StoreError> {
        let mut tx = self.db.write().await?;
        upsert_items(&mut tx, items, now).await?;
        commit(tx).await
    }

    async fn touch(&self, items: &[Item], now: UnixMillis) -> Result<(), StoreError> {
        let mut tx = self.db.write().await?;
        update_used(&mut tx, items, now).await?;
        commit(tx).await
    }

    async fn total_bytes(&self) -> Result<u64, StoreError> {
        let mut tx = self.db.read().await?;
        select_total(&mut tx).await
    }

    async fn oldest(&self, limit: u32) -> Result<Vec<Candidate>, StoreError> {
        let mut tx = self.db.read().await?;
        let items = select_oldest(&mut tx, limit).await?;
        let ids = to_json(
            &items
                .iter()
                .map(|row| [&row.kind, &row.id])
                .collect::<Vec<_>>(),
        );
        let mut needed_by: HashMap<Item, Vec<Referrer>> = HashMap::new();
        for row in select_referrers(&mut tx, &ids).await? {
            let (item, referrer) = row.referrer()?;
            needed_by.entry(item).or_default().push(referrer);
        }
        items
            .into_iter()
            .map(|row| {
                let item = item(&row.kind, row.id)?;
                let needed_by = needed_by.remove(&item).unwrap_or_default();
                let bytes = uint("usage.bytes", row.bytes)?;
                Ok(Candidate {
                    item,
                    bytes,
                    used: UnixMillis(row.used_at),
                    needed_by,
                })
            })
            .collect()
    }

    async fn remove_usage(&self, items: &[Item]) -> Result<(), StoreError> {
        let mut tx = self.db.write().await?;
        delete_items(&mut tx, items).await?;
        commit(tx).await
    }
}

const KINDS: [(ItemKind, &str); 3] = [
    (ItemKind::Blob, "blob"),
    (ItemKind::Flat, "flat"),
    (ItemKind::Snapshot, "snapshot"),
];

fn kind_text(kind: ItemKind) -> &'static str {
    let known = KINDS.iter().find(|(known, _)| *known == kind);
    known.expect("every kind is in the table").1
}

fn item(kind: &str, id: String) -> Result<Item, StoreError> {
    let known = KINDS
        .iter()
        .find(|(_, text)| *text == kind)
        .ok_or_else(|| corrupt("usage.kind", kind))?;
    Ok(Item { kind: known.0, id })
}

fn items_json(items: &[Item]) -> String {
    to_json(
        &items
            .iter()
            .map(|item| [kind_text(item.kind), &item.id])
            .collect::<Vec<_>>(),
    )
}

/// A row of `usage`.
#[derive(Debug, sqlx::FromRow)]
struct ItemRow {
    kind: String,
    id: String,
    bytes: i64,
    used_at: i64,
}

/// An item, how something refers to it, and what that is: a layer or a build.
#[derive(Debug, sqlx::FromRow)]
struct ReferrerRow {
    kind: String,
    id: String,
    how: String,
    layer: Option<Vec<u8>>,
    build: Option<String>,
}

impl ReferrerRow {
    fn referrer(self) -> Result<(Item, Referrer), StoreError> {
        let item = item(&self.kind, self.id)?;
        let referrer = match (self.how.as_str(), self.layer, self.build) {
            ("layer", Some(layer), _) => Referrer::Layer(LayerId(digest("layers.id", &layer)?)),
            ("pulled", Some(layer), _) => Referrer::Pulled(LayerId(digest("layers.id", &layer)?)),
            ("encoding", Some(layer), _) => {
                Referrer::Encoding(LayerId(digest("encodings.layer", &layer)?))
            }
            ("log", _, Some(build)) => Referrer::Log(BuildId::new(build)),
            (how, ..) => return Err(corrupt("the referrers of usage", how)),
        };
        Ok((item, referrer))
    }
}

async fn upsert_items(
    tx: &mut SqliteConnection,
    items: &[(Item, u64)],
    now: UnixMillis,
) -> Result<(), StoreError> {
    let rows: Vec<_> = items
        .iter()
        .map(|(item, bytes)| json!([kind_text(item.kind), item.id, int(*bytes)]))
        .collect();
    // `WHERE true` tells the parser that ON CONFLICT is not a join's ON.
    sqlx::query(
        "INSERT INTO usage (kind, id, bytes, used_at) \
         SELECT value ->> 0, value ->> 1, value ->> 2, ?2 FROM json_each(?1) WHERE true \
         ON CONFLICT (kind, id) DO UPDATE SET bytes = excluded.bytes, used_at = max(usage.used_at, excluded.used_at)",
    )
    .bind(to_json(&rows))
    .bind(now.0)
    .execute(tx)
    .await
    .during("recording what takes room")?;
    Ok(())
}

async fn update_used(
    tx: &mut SqliteConnection,
    items: &[Item],
    now: UnixMillis,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE usage SET used_at = max(used_at, ?2) FROM json_each(?1) AS touched \
         WHERE usage.kind = touched.value ->> 0 AND usage.id = touched.value ->> 1",
    )
    .bind(items_json(items))
    .bind(now.0)
    .execute(tx)
    .await
    .during("noting a use")?;
    Ok(())
}

/// Reads an index of two numbers per item; no running total that could drift.
async fn select_total(tx: &mut SqliteConnection) -> Result<u64, StoreError> {
    let total: i64 =
        sqlx::query_scalar("SELECT coalesce(sum(bytes), 0) FROM usage INDEXED BY usage_by_use")
            .fetch_one(tx)
            .await
            .during("adding up what takes room")?;
    uint("sum of usage.bytes", total)
}

async fn select_oldest(tx: &mut SqliteConnection, limit: u32) -> Result<Vec<ItemRow>, StoreError> {
    sqlx::query_as("SELECT * FROM usage ORDER BY used_at, bytes DESC, kind, id LIMIT ?1")
        .bind(limit)
        .fetch_all(tx)
        .await
        .during("looking for what was not used for long")
}

async fn select_referrers(
    tx: &mut SqliteConnection,
    items: &str,
) -> Result<Vec<ReferrerRow>, StoreError> {
    sqlx::query_as(
        "WITH items AS MATERIALIZED (SELECT value ->> 0 AS kind, value ->> 1 AS id, \
             unhex(CASE WHEN value ->> 0 = 'blob' THEN substr(value ->> 1, 8) ELSE value ->> 1 END) AS bytes \
             FROM json_each(?1)) \
         SELECT items.kind, items.id, 'layer' AS how, layers.id AS layer, NULL AS build \
             FROM items JOIN layers ON items.kind = 'blob' AND layers.toc = items.bytes \
         UNION SELECT items.kind, items.id, 'layer', layer_flats.layer, NULL \
             FROM items JOIN layer_flats ON items.kind = 'flat' AND layer_flats.flat = items.bytes \
         UNION SELECT items.kind, items.id, 'pulled', layers.id, NULL \
             FROM items JOIN layers ON items.kind = 'blob' AND layers.pulled_blob = items.bytes \
         UNION SELECT items.kind, items.id, 'encoding', encodings.layer, NULL \
             FROM items JOIN encodings ON items.kind = 'blob' AND encodings.digest = items.bytes \
         UNION SELECT items.kind, items.id, 'log', NULL, results.build \
             FROM items JOIN results ON items.kind = 'blob' AND results.log = items.bytes \
         UNION SELECT items.kind, items.id, 'log', NULL, build_steps.build \
             FROM items JOIN build_steps ON items.kind = 'blob' AND build_steps.log_blob = items.bytes",
    )
    .bind(items)
    .fetch_all(tx)
    .await
    .during("looking for what refers to unused things")
}

async fn delete_items(tx: &mut SqliteConnection, items: &[Item]) -> Result<(), StoreError> {
    sqlx::query(
        "DELETE FROM usage WHERE (kind, id) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?1))",
    )
    .bind(items_json(items))
    .execute(tx)
    .await
    .during("noting a removal")?;
    Ok(())
}
