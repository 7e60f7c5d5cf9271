//! Layers.

use std::collections::HashMap;

use async_trait::async_trait;
use buildyard_model::{Digest, FlatId, LayerId, WorkerId};
use serde_json::json;
use sqlx::SqliteConnection;

use super::SqliteStore;
use super::columns::{During, bytes32, corrupt, digest, hex_list, in_order, int, to_json, uint};
use super::db::commit;
use super::results::delete_results_with;
use crate::{LayerRecord, Layers, MAX_SOURCES, Pulled, Source, StoreError, UnixMillis};

#[async_trait]
impl Layers for SqliteStore {
    async fn put_layers(&self, layers: &[LayerRecord]) -> Result<(), StoreError> {
        let mut tx = self.db.write().await?;
        for layer in layers {
            put_layer(&mut tx, layer).await?;
        }
        commit(tx).await
    }

    async fn layers(&self, ids: &[LayerId]) -> Result<Vec<Option<LayerRecord>>, StoreError> {
        let asked = hex_list(ids.iter().map(|id| id.0.as_bytes()));
        let mut tx = self.db.read().await?;
        let rows = select_layers(&mut tx, &asked).await?;
        let mut flats = by_layer(select_flats(&mut tx, &asked).await?, FlatRow::flat)?;
        let mut sources = by_layer(select_sources(&mut tx, &asked).await?, SourceRow::source)?;
        let mut found = HashMap::new();
        for row in rows {
            let id = LayerId(digest("layers.id", &row.id)?);
            let (flats, sources) = (flats.remove(&id), sources.remove(&id));
            found.insert(
                id,
                row.record(id, flats.unwrap_or_default(), sources.unwrap_or_default())?,
            );
        }
        Ok(in_order(ids.iter().copied(), &found))
    }

    async fn add_source(
        &self,
        layer: LayerId,
        source: &Source,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        let mut tx = self.db.write().await?;
        let added = upsert_source(&mut tx, layer, source, now).await?;
        delete_surplus_sources(&mut tx, layer).await?;
        commit(tx).await?;
        Ok(added)
    }

    async fn set_published(&self, layer: LayerId, toc: Digest) -> Result<bool, StoreError> {
        let mut tx = self.db.write().await?;
        let published = update_published(&mut tx, layer, toc).await?;
        commit(tx).await?;
        Ok(published)
    }

    async fn remove_layers(&self, layers: &[LayerId]) -> Result<usize, StoreError> {
        let mut tx = self.db.write().await?;
        let misses = delete_results_with(&mut tx, layers).await?;
        delete_layers(&mut tx, layers).await?;
        commit(tx).await?;
        Ok(misses)
    }
}

/// Records one layer, see [`Layers::put_layers`].
pub(super) async fn put_layer(
    tx: &mut SqliteConnection,
    layer: &LayerRecord,
) -> Result<(), StoreError> {
    if let (Some(_), Some(pulled)) = (layer.toc, &layer.pulled)
        && has_other_blob(tx, layer.id, pulled.blob).await?
    {
        return Ok(());
    }
    if upsert_layer(tx, layer).await? {
        delete_flats(tx, layer.id).await?;
        insert_flats(tx, layer).await?;
    }
    if let Some(pulled) = &layer.pulled {
        let other = has_other_blob(tx, layer.id, pulled.blob).await?;
        update_pulled(tx, layer.id, pulled).await?;
        if other && has_other_blob(tx, layer.id, pulled.blob).await? {
            // The blob that was read stays, and these places need not have it.
            return Ok(());
        }
        if other {
            delete_sources(tx, layer.id).await?;
        }
        // Last seen first: the first of the list is the newest.
        for source in pulled.sources.iter().take(MAX_SOURCES).rev() {
            upsert_source(tx, layer.id, source, layer.created).await?;
        }
        delete_surplus_sources(tx, layer.id).await?;
    }
    Ok(())
}

/// A row of `layers`.
#[derive(Debug, sqlx::FromRow)]
struct LayerRow {
    id: Vec<u8>,
    toc: Option<Vec<u8>>,
    toc_size: i64,
    made_by: Option<String>,
    published: bool,
    created_at: i64,
    pulled_blob: Option<Vec<u8>>,
    pulled_size: Option<i64>,
    pulled_media_type: Option<String>,
}

impl LayerRow {
    fn record(
        self,
        id: LayerId,
        flats: Vec<(FlatId, u64)>,
        sources: Vec<Source>,
    ) -> Result<LayerRecord, StoreError> {
        let pulled = match (self.pulled_blob, self.pulled_size, self.pulled_media_type) {
            (Some(blob), Some(size), Some(media_type)) => Some(Pulled {
                blob: digest("layers.pulled_blob", &blob)?,
                size: uint("layers.pulled_size", size)?,
                media_type,
                sources,
            }),
            (None, None, None) => None,
            _ => {
                return Err(corrupt(
                    "layers.pulled_*",
                    "only a part of where it was pulled from",
                ));
            }
        };
        Ok(LayerRecord {
            id,
            toc: self
                .toc
                .as_deref()
                .map(|bytes| digest("layers.toc", bytes))
                .transpose()?,
            toc_size: uint("layers.toc_size", self.toc_size)?,
            flats,
            pulled,
            made_by: self.made_by.map(WorkerId::new),
            published: self.published,
            created: UnixMillis(self.created_at),
        })
    }
}

/// A row of `layer_flats`.
#[derive(Debug, sqlx::FromRow)]
struct FlatRow {
    layer: Vec<u8>,
    flat: Vec<u8>,
    bytes: i64,
}

impl FlatRow {
    fn flat(self) -> Result<(LayerId, (FlatId, u64)), StoreError> {
        let flat = FlatId::from_bytes(bytes32("layer_flats.flat", &self.flat)?);
        let bytes = uint("layer_flats.bytes", self.bytes)?;
        Ok((
            LayerId(digest("layer_flats.layer", &self.layer)?),
            (flat, bytes),
        ))
    }
}

/// A row of `layer_sources`.
#[derive(Debug, sqlx::FromRow)]
struct SourceRow {
    layer: Vec<u8>,
    registry: String,
    repository: String,
}

impl SourceRow {
    fn source(self) -> Result<(LayerId, Source), StoreError> {
        let layer = LayerId(digest("layer_sources.layer", &self.layer)?);
        Ok((
            layer,
            Source {
                registry: self.registry,
                repository: self.repository,
            },
        ))
    }
}

/// Groups rows by their layer, in their order.
fn by_layer<R, T>(
    rows: Vec<R>,
    read: impl Fn(R) -> Result<(LayerId, T), StoreError>,
) -> Result<HashMap<LayerId, Vec<T>>, StoreError> {
    let mut grouped: HashMap<LayerId, Vec<T>> = HashMap::new();
    for row in rows {
        let (layer, value) = read(row)?;
        grouped.entry(layer).or_default().push(value);
    }
    Ok(grouped)
}

async fn select_layers(
    tx: &mut SqliteConnection,
    asked: &str,
) -> Result<Vec<LayerRow>, StoreError> {
    sqlx::query_as("SELECT * FROM layers WHERE id IN (SELECT unhex(value) FROM json_each(?1))")
        .bind(asked)
        .fetch_all(tx)
        .await
        .during("looking up layers")
}

async fn select_flats(tx: &mut SqliteConnection, asked: &str) -> Result<Vec<FlatRow>, StoreError> {
    sqlx::query_as(
        "SELECT * FROM layer_flats WHERE layer IN (SELECT unhex(value) FROM json_each(?1)) ORDER BY layer, position",
    )
    .bind(asked)
    .fetch_all(tx)
    .await
    .during("looking up the flat files of layers")
}

async fn select_sources(
    tx: &mut SqliteConnection,
    asked: &str,
) -> Result<Vec<SourceRow>, StoreError> {
    sqlx::query_as(
        "SELECT * FROM layer_sources WHERE layer IN (SELECT unhex(value) FROM json_each(?1)) \
         ORDER BY layer, seen_at DESC, registry, repository",
    )
    .bind(asked)
    .fetch_all(tx)
    .await
    .during("looking up the sources of layers")
}

async fn has_other_blob(
    tx: &mut SqliteConnection,
    layer: LayerId,
    blob: Digest,
) -> Result<bool, StoreError> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM layers WHERE id = ?1 AND pulled_blob <> ?2)")
        .bind(&layer.0.as_bytes()[..])
        .bind(&blob.as_bytes()[..])
        .fetch_one(tx)
        .await
        .during("comparing the blob of a layer")
}

/// Whether the row took the new TOC: it was missing or not published.
async fn upsert_layer(tx: &mut SqliteConnection, layer: &LayerRecord) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "INSERT INTO layers (id, toc, toc_size, made_by, published, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
         ON CONFLICT (id) DO UPDATE SET toc = excluded.toc, toc_size = excluded.toc_size, \
         made_by = excluded.made_by, published = excluded.published \
         WHERE (layers.published = 0 OR layers.toc IS NULL) AND excluded.toc IS NOT NULL",
    )
    .bind(&layer.id.0.as_bytes()[..])
    .bind(layer.toc.as_ref().map(|toc| &toc.as_bytes()[..]))
    .bind(int(layer.toc_size))
    .bind(layer.made_by.as_ref().map(WorkerId::as_str))
    .bind(layer.published)
    .bind(layer.created.0)
    .execute(tx)
    .await
    .during("recording a layer")?;
    Ok(done.rows_affected() > 0)
}

/// While nobody has read the layer, what an image says of it is a claim: the last one counts, so that an image which lies
/// does not spoil the layer for those that come after. Once it was read, both digests were checked, and it stays.
async fn update_pulled(
    tx: &mut SqliteConnection,
    layer: LayerId,
    pulled: &Pulled,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE layers SET pulled_blob = ?2, pulled_size = ?3, pulled_media_type = ?4 \
         WHERE id = ?1 AND (pulled_blob IS NULL OR toc IS NULL)",
    )
    .bind(&layer.0.as_bytes()[..])
    .bind(&pulled.blob.as_bytes()[..])
    .bind(int(pulled.size))
    .bind(&pulled.media_type)
    .execute(tx)
    .await
    .during("recording where a layer was pulled from")?;
    Ok(())
}

async fn delete_flats(tx: &mut SqliteConnection, layer: LayerId) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM layer_flats WHERE layer = ?1")
        .bind(&layer.0.as_bytes()[..])
        .execute(tx)
        .await
        .during("replacing the flat files of a layer")?;
    Ok(())
}

async fn insert_flats(tx: &mut SqliteConnection, layer: &LayerRecord) -> Result<(), StoreError> {
    let flats: Vec<_> = layer
        .flats
        .iter()
        .map(|(flat, bytes)| json!({"flat": flat.to_string(), "bytes": int(*bytes)}))
        .collect();
    sqlx::query(
        "INSERT INTO layer_flats (layer, position, flat, bytes) \
         SELECT ?1, key, unhex(value ->> 'flat'), value ->> 'bytes' FROM json_each(?2)",
    )
    .bind(&layer.id.0.as_bytes()[..])
    .bind(to_json(&flats))
    .execute(tx)
    .await
    .during("recording the flat files of a layer")?;
    Ok(())
}

/// `seen_at` grows by one per call where times are equal, so that the order within one call stays.
async fn upsert_source(
    tx: &mut SqliteConnection,
    layer: LayerId,
    source: &Source,
    now: UnixMillis,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "INSERT INTO layer_sources (layer, registry, repository, seen_at) \
         SELECT id, ?2, ?3, max(?4, 1 + coalesce((SELECT max(seen_at) FROM layer_sources WHERE layer = ?1), 0)) \
         FROM layers WHERE id = ?1 AND pulled_blob IS NOT NULL \
         ON CONFLICT (layer, registry, repository) DO UPDATE SET seen_at = excluded.seen_at",
    )
    .bind(&layer.0.as_bytes()[..])
    .bind(&source.registry)
    .bind(&source.repository)
    .bind(now.0)
    .execute(tx)
    .await
    .during("recording a layer's source")?;
    Ok(done.rows_affected() > 0)
}

async fn delete_sources(tx: &mut SqliteConnection, layer: LayerId) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM layer_sources WHERE layer = ?1")
        .bind(&layer.0.as_bytes()[..])
        .execute(tx)
        .await
        .during("replacing the sources of a layer")?;
    Ok(())
}

async fn delete_surplus_sources(
    tx: &mut SqliteConnection,
    layer: LayerId,
) -> Result<(), StoreError> {
    sqlx::query(
        "DELETE FROM layer_sources WHERE layer = ?1 AND seen_at < (SELECT seen_at FROM layer_sources \
         WHERE layer = ?1 ORDER BY seen_at DESC LIMIT 1 OFFSET ?2)",
    )
    .bind(&layer.0.as_bytes()[..])
    .bind(int(MAX_SOURCES as u64 - 1))
    .execute(tx)
    .await
    .during("dropping a layer's oldest sources")?;
    Ok(())
}

async fn update_published(
    tx: &mut SqliteConnection,
    layer: LayerId,
    toc: Digest,
) -> Result<bool, StoreError> {
    let done = sqlx::query("UPDATE layers SET published = 1 WHERE id = ?1 AND toc = ?2")
        .bind(&layer.0.as_bytes()[..])
        .bind(&toc.as_bytes()[..])
        .execute(tx)
        .await
        .during("noting that a layer is published")?;
    Ok(done.rows_affected() > 0)
}

async fn delete_layers(tx: &mut SqliteConnection, layers: &[LayerId]) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM layers WHERE id IN (SELECT unhex(value) FROM json_each(?1))")
        .bind(hex_list(layers.iter().map(|layer| layer.0.as_bytes())))
        .execute(tx)
        .await
        .during("removing layers")?;
    Ok(())
}
