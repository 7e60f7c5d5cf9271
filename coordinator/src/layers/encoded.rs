//! The encoded forms of layers, for exporters. Each is made once: what comes out is recorded, and the bytes stay as a blob
//! until room is needed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use buildyard_cas::WHOLE;
use buildyard_image::{Compression, CompressionKind, Descriptor};
use buildyard_layer::{Encoding, ExtentSource, Toc};
use buildyard_model::{Digest, LayerId};
use buildyard_registry::{BlobStream, Reference};
use futures::StreamExt;

use super::{LayerStore, LayersError, Origins};
use crate::causes::with_causes;
use crate::export::{ExportError, LayerBlob, LayerBlobs};

/// The layers of the farm as one build's exporters see them.
pub struct ExportLayers {
    layers: Arc<LayerStore>,
    /// Base layers come from there.
    origins: Origins,
    /// Blobs of this build by their digests.
    described: Mutex<HashMap<Digest, Described>>,
}

impl ExportLayers {
    /// The view of a build whose images are from there.
    pub fn new(layers: Arc<LayerStore>, origins: Origins) -> Self {
        Self {
            layers,
            origins,
            described: Mutex::default(),
        }
    }

    fn described(&self) -> MutexGuard<'_, HashMap<Digest, Described>> {
        self.described
            .lock()
            .expect("nobody panics while holding it")
    }
}

/// How a blob of this build came to be.
#[derive(Debug, Clone, Copy)]
struct Described {
    encoding: Encoding,
    /// This build has made it: its bytes were hashed when they were written.
    made: bool,
}

#[async_trait]
impl LayerBlobs for ExportLayers {
    async fn describe(
        &self,
        layer: LayerId,
        compression: Compression,
        force: bool,
    ) -> Result<LayerBlob, ExportError> {
        let record = self
            .layers
            .record(layer)
            .await
            .map_err(|e| failed(layer, &e))?;
        let record = record.ok_or_else(|| failed(layer, &LayersError::Unknown(layer)))?;
        if let Some(pulled) = self.origins.of(&record).filter(|_| !force) {
            let origin = pulled.sources.first().and_then(|source| {
                format!("{}/{}@{}", source.registry, source.repository, pulled.blob)
                    .parse::<Reference>()
                    .ok()
            });
            let descriptor = Descriptor::new(&pulled.media_type, pulled.blob, pulled.size);
            return Ok(LayerBlob {
                layer,
                descriptor,
                diff_id: layer.0,
                origin,
            });
        }
        let encoding = encoding_of(compression);
        let (encoded, made) = self
            .layers
            .encoded(&record, encoding, false, &self.origins)
            .await
            .map_err(|e| failed(layer, &e))?;
        self.described()
            .entry(encoded.digest)
            .or_insert(Described { encoding, made })
            .made |= made;
        let descriptor = Descriptor::new(encoding.oci_media_type(), encoded.digest, encoded.size);
        Ok(LayerBlob {
            layer,
            descriptor,
            diff_id: encoded.diff_id,
            origin: None,
        })
    }

    async fn open(&self, blob: &LayerBlob) -> Result<BlobStream, ExportError> {
        let layer = blob.layer;
        if let Some(origin) = &blob.origin {
            let stream = self
                .origins
                .registry
                .fetch_blob(origin, &blob.descriptor)
                .await?;
            return Ok(stream);
        }
        let reader = self
            .layers
            .blobs
            .open(blob.descriptor.digest, WHOLE)
            .await
            .map_err(|e| failed(layer, &e.into()))?;
        if let Some(reader) = reader {
            return Ok(reader.into_stream());
        }
        // Collected since it was described: the encoding is a function, so the same bytes are made again.
        let record = self
            .layers
            .record(layer)
            .await
            .map_err(|e| failed(layer, &e))?;
        let record = record.ok_or_else(|| failed(layer, &LayersError::Unknown(layer)))?;
        let described = self.described().get(&blob.descriptor.digest).copied();
        let described = described.ok_or_else(|| failed(layer, &LayersError::Unknown(layer)))?;
        self.layers
            .encoded(&record, described.encoding, true, &self.origins)
            .await
            .map_err(|e| failed(layer, &e))?;
        let reader = self
            .layers
            .blobs
            .open(blob.descriptor.digest, WHOLE)
            .await
            .map_err(|e| failed(layer, &e.into()))?;
        match reader {
            Some(reader) => Ok(reader.into_stream()),
            None => Err(ExportError::Layer {
                layer: layer.to_string(),
                cause: "its encoded form vanished twice; is the blob store large enough?"
                    .to_owned(),
            }),
        }
    }

    async fn prove(&self, blob: &LayerBlob) -> Result<(), ExportError> {
        let described = self.described().get(&blob.descriptor.digest).copied();
        if blob.origin.is_some() || described.is_some_and(|described| described.made) {
            return Ok(());
        }
        let mut bytes = self.open(blob).await?;
        // What fails was removed.
        while let Some(Ok(_)) = bytes.next().await {}
        Ok(())
    }

    async fn tree(
        &self,
        layers: &[LayerId],
    ) -> Result<(Arc<Toc>, Arc<dyn ExtentSource>), ExportError> {
        let mut tocs = Vec::with_capacity(layers.len());
        for &layer in layers {
            tocs.push(
                self.layers
                    .ready(layer, &self.origins)
                    .await
                    .map_err(|e| failed(layer, &e))?,
            );
        }
        let toc = tokio::task::spawn_blocking(move || {
            Arc::new(buildyard_layer::Tree::merge(&tocs).to_toc())
        })
        .await
        .expect("merging does not panic");
        Ok((toc, Arc::new(self.layers.flats.clone())))
    }
}

fn failed(layer: LayerId, error: &LayersError) -> ExportError {
    ExportError::Layer {
        layer: layer.to_string(),
        cause: with_causes(error),
    }
}

fn encoding_of(compression: Compression) -> Encoding {
    match compression.kind {
        CompressionKind::Uncompressed => Encoding::Uncompressed,
        CompressionKind::Gzip => match compression.level {
            Some(level) => Encoding::Gzip { level },
            None => Encoding::GZIP,
        },
        CompressionKind::Zstd => match compression.level {
            Some(level) => Encoding::Zstd { level },
            None => Encoding::ZSTD,
        },
    }
}
