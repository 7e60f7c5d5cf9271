//! Making a layer's bytes present on the coordinator: those of a step's layer are waited for while its worker publishes
//! them, those of an image's layer are pulled.

use std::sync::Arc;
use std::time::Duration;

use buildyard_image::Descriptor;
use buildyard_layer::Toc;
use buildyard_model::{Digest, LayerId};
use buildyard_registry::Reference;
use buildyard_solver::pull;
use buildyard_store::Pulled;

use super::{LayerStore, LayersError, Origins};

/// How long an export waits for a layer that its worker is still publishing.
const PUBLISHED_WITHIN: Duration = Duration::from_secs(600);

impl LayerStore {
    /// A layer's table of contents, when all the bytes it names are here.
    pub(super) async fn ready(
        &self,
        id: LayerId,
        origins: &Origins,
    ) -> Result<Arc<Toc>, LayersError> {
        let deadline = tokio::time::Instant::now() + PUBLISHED_WITHIN;
        loop {
            let record = self.record(id).await?.ok_or(LayersError::Unknown(id))?;
            let toc = self.toc(id).await?;
            if let Some(toc) = &toc
                && self.missing(toc)?.is_empty()
            {
                return Ok(toc.clone());
            }
            if let Some(pulled) = origins.of(&record) {
                return self.pull(id, pulled, origins).await;
            }
            if let Some(toc) = &toc
                && self.pull_missing(toc, origins).await?
            {
                continue;
            }
            if record.published || toc.is_none() || tokio::time::Instant::now() > deadline {
                self.lost(id).await?;
                return Err(LayersError::Lost(id));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Pulls the layers of images whose flat files are missing here: files copied out of an image point into them.
    /// Returns whether anything was pulled.
    async fn pull_missing(&self, toc: &Toc, origins: &Origins) -> Result<bool, LayersError> {
        let mut pulled = false;
        for (flat, _) in self.missing(toc)? {
            let origin = LayerId(Digest::from_bytes(*flat.as_bytes()));
            let record = self.record(origin).await?;
            if let Some(from) = record.as_ref().and_then(|record| origins.of(record)) {
                self.pull(origin, from, origins).await?;
                pulled = true;
            }
        }
        Ok(pulled)
    }

    /// Reads an image's layer from one of the places it was seen in.
    async fn pull(
        &self,
        id: LayerId,
        pulled: &Pulled,
        origins: &Origins,
    ) -> Result<Arc<Toc>, LayersError> {
        let alone = self.pull_lock(id);
        let _alone = alone.lock().await;
        if let Some(toc) = self.toc(id).await?
            && self.missing(&toc)?.is_empty()
        {
            return Ok(toc);
        }
        let descriptor = Descriptor::new(&pulled.media_type, pulled.blob, pulled.size);
        // The place seen last comes first, and its error counts: the others may be of other images.
        let mut failure = None;
        for source in &pulled.sources {
            let Ok(reference) =
                format!("{}/{}@{}", source.registry, source.repository, pulled.blob)
                    .parse::<Reference>()
            else {
                continue;
            };
            let registry = &origins.registry;
            match pull::pull(registry, &reference, &descriptor, id.0, &self.flats).await {
                Ok(toc) => {
                    let toc = Arc::new(toc);
                    let encoded = toc.encode_shared();
                    self.put_pulled_toc(id, pulled.blob, &encoded, true).await?;
                    self.memory.put(id, toc.clone());
                    return Ok(toc);
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        Err(failure.map_or(LayersError::Lost(id), LayersError::Pull))
    }

    fn pull_lock(&self, id: LayerId) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.pulling.lock().expect("nobody panics while holding it");
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        locks.entry(id).or_default().clone()
    }
}
