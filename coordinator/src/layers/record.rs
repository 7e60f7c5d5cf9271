//! Recording layers: those that steps made, those that images have, and what becomes of them.

use std::ops::Range;
use std::sync::Arc;

use buildyard_layer::{Toc, ranges_of};
use buildyard_model::{Digest, FlatId, LayerId, WorkerId};
use buildyard_store::{LayerRecord, Pulled, UnixMillis};

use super::{LayerStore, LayersError};

fn named_bytes(toc: &Toc) -> Vec<(FlatId, u64)> {
    let total = |ranges: Vec<Range<u64>>| ranges.iter().map(|range| range.end - range.start).sum();
    ranges_of(toc)
        .into_iter()
        .map(|(flat, ranges)| (flat, total(ranges)))
        .collect()
}

/// Whether all bytes that the TOC names are of the pulled layer itself.
fn is_of(toc: &Toc, id: LayerId) -> bool {
    toc.flats.iter().all(|flat| *flat == FlatId::from(id.0))
}

/// Whether `known` has everything that `seen` says, with its sources as the last seen ones.
fn says_all_of(known: &Pulled, seen: &Pulled) -> bool {
    let but_for_sources = |pulled: &Pulled| Pulled {
        sources: Vec::new(),
        ..pulled.clone()
    };
    but_for_sources(known) == but_for_sources(seen) && known.sources.starts_with(&seen.sources)
}

impl LayerStore {
    /// Takes in the TOC of a layer that a step made on `worker`. `here`: its flat files are this machine's, so it is published.
    /// Returns the record, which goes into the store with the step's result. Neither is waited for to be on the disk: a layer
    /// whose TOC is lost is a miss.
    pub async fn made(
        &self,
        id: LayerId,
        toc_bytes: &[u8],
        worker: &WorkerId,
        here: bool,
        now: UnixMillis,
    ) -> Result<LayerRecord, LayersError> {
        let toc = Toc::decode_shared(toc_bytes).map_err(|error| LayersError::Toc(id, error))?;
        if toc.layer_id() != id {
            return Err(LayersError::WrongToc(id));
        }
        let digest = buildyard_cas::put_relaxed(self.blobs.as_ref(), toc_bytes.to_vec())
            .await?
            .digest;
        let flats = named_bytes(&toc);
        let published = here || self.missing(&toc)?.is_empty();
        Ok(LayerRecord {
            id,
            toc: Some(digest),
            toc_size: toc_bytes.len() as u64,
            flats,
            pulled: None,
            made_by: Some(worker.clone()),
            published,
            created: now,
        })
    }

    /// Layers were recorded anew: what is kept of them may be of another making.
    pub fn were_recorded(&self, layers: &[LayerRecord]) {
        for layer in layers {
            self.memory.forget(&layer.id);
        }
    }

    /// Records a layer that the coordinator made itself (a build context). Its flat files are here. An equal layer that is
    /// known already stays, and the new bytes go.
    pub async fn put_own(&self, toc: Arc<Toc>, now: UnixMillis) -> Result<LayerId, LayersError> {
        let encoder = toc.clone();
        let (id, bytes) =
            tokio::task::spawn_blocking(move || (encoder.layer_id(), encoder.encode_shared()))
                .await
                .expect("encoding does not panic");
        let digest = buildyard_cas::put(self.blobs.as_ref(), bytes).await?;
        if self.is_known(id, digest.digest, &toc).await? {
            return Ok(id);
        }
        let record = LayerRecord {
            id,
            toc: Some(digest.digest),
            toc_size: digest.size,
            flats: named_bytes(&toc),
            pulled: None,
            made_by: None,
            published: true,
            created: now,
        };
        self.store.put_layers(&[record]).await?;
        self.memory.put(id, toc);
        Ok(id)
    }

    /// Whether a layer that was recorded by [`LayerStore::put_own`] still is, with its table of contents.
    pub async fn keeps_own(&self, id: LayerId) -> Result<bool, LayersError> {
        let record = self.record(id).await?.filter(|record| record.published);
        match record.and_then(|record| record.toc) {
            Some(blob) => Ok(self.blobs.stat(blob).await?.is_some()),
            None => Ok(false),
        }
    }

    /// Whether there is an equal layer that is whole. One that is not is struck out.
    async fn is_known(&self, id: LayerId, new: Digest, toc: &Toc) -> Result<bool, LayersError> {
        let Some(record) = self.record(id).await? else {
            return Ok(false);
        };
        if record.toc == Some(new) {
            return Ok(false);
        }
        self.memory.forget(&id);
        let Some(known) = self.toc(id).await? else {
            self.store.remove_layers(&[id]).await?;
            return Ok(false);
        };
        if !record.published || !self.missing(&known)?.is_empty() {
            self.store.remove_layers(&[id]).await?;
            self.memory.forget(&id);
            return Ok(false);
        }
        for flat in toc.flats.iter().filter(|flat| !known.flats.contains(flat)) {
            self.flats.remove(*flat)?;
        }
        Ok(true)
    }

    /// Records the layers of an image, unless they are recorded like that already: reading is no burden to others, and an
    /// image is nearly always the one that the build before had.
    pub async fn put_image(
        &self,
        layers: impl Iterator<Item = (LayerId, Pulled)>,
        now: UnixMillis,
    ) -> Result<(), LayersError> {
        let (ids, pulled): (Vec<LayerId>, Vec<Pulled>) = layers.unzip();
        let known = self.store.layers(&ids).await?;
        let is_known = |(known, pulled): (&Option<LayerRecord>, &Pulled)| {
            let known = known.as_ref().and_then(|record| record.pulled.as_ref());
            known.is_some_and(|known| says_all_of(known, pulled))
        };
        if known.iter().zip(&pulled).all(is_known) {
            return Ok(());
        }
        let records: Vec<LayerRecord> = ids
            .into_iter()
            .zip(pulled)
            .map(|(id, pulled)| LayerRecord {
                id,
                toc: None,
                toc_size: 0,
                flats: Vec::new(),
                pulled: Some(pulled),
                made_by: None,
                published: false,
                created: now,
            })
            .collect();
        self.store.put_layers(&records).await?;
        Ok(())
    }

    /// Records the TOC of a pulled layer, which whoever read it from `blob` has checked against both digests. Where another
    /// image has named another blob for the layer meanwhile nothing is recorded: that one was not checked.
    pub async fn put_pulled_toc(
        &self,
        id: LayerId,
        blob: Digest,
        toc_bytes: &[u8],
        here: bool,
    ) -> Result<(), LayersError> {
        let toc = Toc::decode_shared(toc_bytes).map_err(|error| LayersError::Toc(id, error))?;
        let record = self.record(id).await?.ok_or(LayersError::Unknown(id))?;
        let Some(pulled) = record.pulled.clone().filter(|_| is_of(&toc, id)) else {
            return Err(LayersError::WrongToc(id));
        };
        if pulled.blob != blob {
            tracing::info!(layer = %id, read = %blob, now = %pulled.blob, "a layer was read whose image is not the last one any more");
            return Ok(());
        }
        let digest = buildyard_cas::put(self.blobs.as_ref(), toc_bytes.to_vec())
            .await?
            .digest;
        let record = LayerRecord {
            toc: Some(digest),
            toc_size: toc_bytes.len() as u64,
            flats: named_bytes(&toc),
            published: here,
            ..record
        };
        self.store.put_layers(&[record]).await?;
        self.memory.forget(&id);
        Ok(())
    }

    /// Whether `worker` made `layer`, has not published it, and the layer names `flat`.
    pub async fn may_publish(
        &self,
        layer: LayerId,
        flat: FlatId,
        worker: &WorkerId,
    ) -> Result<bool, LayersError> {
        let Some(record) = self.record(layer).await? else {
            return Ok(false);
        };
        Ok(!record.published
            && record.made_by.as_ref() == Some(worker)
            && record.flats.iter().any(|(named, _)| *named == flat))
    }

    /// Whether all bytes of `layer` are here.
    pub async fn is_published(&self, layer: LayerId) -> Result<bool, LayersError> {
        let record = self.record(layer).await?;
        Ok(record.is_some_and(|record| record.published))
    }

    /// Whether all that `layer` names of `flat` is here.
    pub async fn has_all(&self, layer: LayerId, flat: FlatId) -> Result<bool, LayersError> {
        let Some(toc) = self.toc(layer).await? else {
            return Ok(false);
        };
        Ok(!self
            .missing(&toc)?
            .iter()
            .any(|(missing, _)| *missing == flat))
    }

    /// Whether the bytes of `layer` that are not here are still to come from the worker that made it.
    pub async fn is_expected(&self, layer: LayerId) -> Result<bool, LayersError> {
        Ok(self
            .record(layer)
            .await?
            .is_some_and(|record| !record.published && record.made_by.is_some()))
    }

    /// Marks a layer as published if all its bytes are here. Returns whether they are.
    pub async fn published(&self, layer: LayerId) -> Result<bool, LayersError> {
        let record = self
            .record(layer)
            .await?
            .ok_or(LayersError::Unknown(layer))?;
        let (Some(toc), Some(digest)) = (self.toc(layer).await?, record.toc) else {
            return Ok(false);
        };
        if !self.missing(&toc)?.is_empty() {
            return Ok(false);
        }
        Ok(self.store.set_published(layer, digest).await?)
    }
}
