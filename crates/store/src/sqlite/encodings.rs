//! Encodings.

use std::collections::HashMap;

use async_trait::async_trait;
use buildyard_model::{Digest, LayerId};
use serde_json::json;
use sqlx::SqliteConnection;

use super::SqliteStore;
use super::columns::{During, corrupt, digest, hex_list, in_order, int, to_json, uint};
use super::db::commit;
use crate::{Encoded, EncodingKey, Encodings, StoreError, UnixMillis};

#[async_trait]
impl Encodings for SqliteStore {
    async fn put_encoding(
        &self,
        key: &EncodingKey,
        encoded: &Encoded,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        let mut tx = self.db.write().await?;
        let known = upsert_encoding(&mut tx, key, encoded, now).await?;
        commit(tx).await?;
        Ok(known)
    }

    async fn encodings(&self, keys: &[EncodingKey]) -> Result<Vec<Option<Encoded>>, StoreError> {
        let mut tx = self.db.read().await?;
        let rows = select_encodings(&mut tx, keys).await?;
        let found = rows
            .into_iter()
            .map(EncodingRow::encoding)
            .collect::<Result<HashMap<_, _>, _>>()?;
        Ok(in_order(keys.iter().cloned(), &found))
    }

    async fn layers_by_diff_id(
        &self,
        diff_ids: &[Digest],
    ) -> Result<Vec<Option<LayerId>>, StoreError> {
        let mut tx = self.db.read().await?;
        let rows = select_by_diff_id(&mut tx, diff_ids).await?;
        let mut found = HashMap::new();
        for row in rows {
            let layer = LayerId(digest("encodings.layer", &row.layer)?);
            found.insert(digest("encodings.diff_id", &row.diff_id)?, layer);
        }
        Ok(in_order(diff_ids.iter().copied(), &found))
    }
}

/// A row of `encodings`.
#[derive(Debug, sqlx::FromRow)]
struct EncodingRow {
    layer: Vec<u8>,
    encoding: String,
    level: i64,
    version: i64,
    digest: Vec<u8>,
    size: i64,
    diff_id: Vec<u8>,
}

impl EncodingRow {
    fn encoding(self) -> Result<(EncodingKey, Encoded), StoreError> {
        let key = EncodingKey {
            layer: LayerId(digest("encodings.layer", &self.layer)?),
            encoding: self.encoding,
            level: i32::try_from(self.level).map_err(|_| corrupt("encodings.level", self.level))?,
            version: u32::try_from(self.version)
                .map_err(|_| corrupt("encodings.version", self.version))?,
        };
        let encoded = Encoded {
            digest: digest("encodings.digest", &self.digest)?,
            size: uint("encodings.size", self.size)?,
            diff_id: digest("encodings.diff_id", &self.diff_id)?,
        };
        Ok((key, encoded))
    }
}

/// A layer and the digest of its tar form.
#[derive(Debug, sqlx::FromRow)]
struct DiffIdRow {
    layer: Vec<u8>,
    diff_id: Vec<u8>,
}

async fn upsert_encoding(
    tx: &mut SqliteConnection,
    key: &EncodingKey,
    encoded: &Encoded,
    now: UnixMillis,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "INSERT INTO encodings (layer, encoding, level, version, digest, size, diff_id, created_at) \
         SELECT id, ?2, ?3, ?4, ?5, ?6, ?7, ?8 FROM layers WHERE id = ?1 \
         ON CONFLICT (layer, encoding, level, version) DO UPDATE SET \
         digest = excluded.digest, size = excluded.size, diff_id = excluded.diff_id",
    )
    .bind(&key.layer.0.as_bytes()[..])
    .bind(&key.encoding)
    .bind(key.level)
    .bind(key.version)
    .bind(&encoded.digest.as_bytes()[..])
    .bind(int(encoded.size))
    .bind(&encoded.diff_id.as_bytes()[..])
    .bind(now.0)
    .execute(tx)
    .await
    .during("recording an encoding")?;
    Ok(done.rows_affected() > 0)
}

async fn select_encodings(
    tx: &mut SqliteConnection,
    keys: &[EncodingKey],
) -> Result<Vec<EncodingRow>, StoreError> {
    let asked: Vec<_> = keys
        .iter()
        .map(|key| {
            json!({
                "layer": key.layer.digest().hex(), "encoding": key.encoding,
                "level": key.level, "version": key.version,
            })
        })
        .collect();
    sqlx::query_as(
        "SELECT DISTINCT encodings.* FROM json_each(?1) AS asked JOIN encodings \
         ON encodings.layer = unhex(asked.value ->> 'layer') AND encodings.encoding = asked.value ->> 'encoding' \
         AND encodings.level = asked.value ->> 'level' AND encodings.version = asked.value ->> 'version'",
    )
    .bind(to_json(&asked))
    .fetch_all(tx)
    .await
    .during("looking up encodings")
}

/// Ordered so that of several layers with one tar form (they differ in what a tar cannot say) it is always the same.
async fn select_by_diff_id(
    tx: &mut SqliteConnection,
    diff_ids: &[Digest],
) -> Result<Vec<DiffIdRow>, StoreError> {
    sqlx::query_as(
        "SELECT layer, diff_id FROM encodings WHERE diff_id IN (SELECT unhex(value) FROM json_each(?1)) \
         ORDER BY diff_id, created_at DESC, layer",
    )
    .bind(hex_list(diff_ids.iter().map(Digest::as_bytes)))
    .fetch_all(tx)
    .await
    .during("looking up layers by diff id")
}
