//! The encoded forms of layers, for exporters. Each is made once: what comes out is recorded, and the bytes stay as a blob
//! until room is needed.

use std::collections::HashSet;
use std::io::{self, Write};
use std::sync::Arc;

use async_trait::async_trait;
use buildyard_cas::WHOLE;
use buildyard_image::{Compression, CompressionKind, Descriptor};
use buildyard_layer::{ENCODER_VERSION, Encoding, ExtentSource, TAR_FORM_VERSION, Toc, compress};
use buildyard_model::{Digest, LayerId};
use buildyard_registry::{BlobStream, Reference};
use buildyard_store::{Encoded, EncodingKey, LayerRecord, UnixMillis};
use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::{Mutex, mpsc};

use super::{LayerStore, LayersError, Origins};
use crate::causes::with_causes;
use crate::export::{ExportError, LayerBlob, LayerBlobs};

/// Bytes that the encoder hands over at once.
const PIECE: usize = 256 << 10;
/// Pieces between the encoder and the blob store.
const AHEAD: usize = 8;

/// The layers of the farm as one build's exporters see them.
pub struct ExportLayers {
    layers: Arc<LayerStore>,
    /// Base layers come from there.
    origins: Origins,
    /// Blobs that this build has made: their bytes were hashed when they were written.
    made: std::sync::Mutex<HashSet<Digest>>,
}

impl ExportLayers {
    /// The view of a build whose images are from there.
    pub fn new(layers: Arc<LayerStore>, origins: Origins) -> Self {
        Self {
            layers,
            origins,
            made: std::sync::Mutex::default(),
        }
    }

    fn made(&self) -> std::sync::MutexGuard<'_, HashSet<Digest>> {
        self.made.lock().expect("nobody panics while holding it")
    }
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
        if made {
            self.made().insert(encoded.digest);
        }
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
        let encoding = encoding_from_media_type(&blob.descriptor.media_type);
        self.layers
            .encoded(&record, encoding, true, &self.origins)
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
        if blob.origin.is_some() || self.made().contains(&blob.descriptor.digest) {
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

fn encoding_from_media_type(media_type: &str) -> Encoding {
    match () {
        () if media_type.ends_with("zstd") => Encoding::ZSTD,
        () if media_type.ends_with("gzip") => Encoding::GZIP,
        () => Encoding::Uncompressed,
    }
}

fn key_of(layer: LayerId, encoding: Encoding) -> EncodingKey {
    let (name, level) = match encoding {
        Encoding::Uncompressed => ("tar", 0),
        Encoding::Gzip { level } => ("gzip", level),
        Encoding::Zstd { level } => ("zstd", level),
    };
    EncodingKey {
        layer,
        encoding: name.to_owned(),
        level: i32::from(level),
        version: ENCODER_VERSION * 1000 + TAR_FORM_VERSION,
    }
}

impl LayerStore {
    /// The encoding of a layer, and whether it was made just now: what is recorded, unless the bytes are wanted too and are
    /// gone.
    async fn encoded(
        self: &Arc<Self>,
        record: &LayerRecord,
        encoding: Encoding,
        bytes_too: bool,
        origins: &Origins,
    ) -> Result<(Encoded, bool), LayersError> {
        let key = key_of(record.id, encoding);
        let alone = self.encoding_lock(&key);
        let _alone = alone.lock().await;
        let known = self
            .store
            .encodings(std::slice::from_ref(&key))
            .await?
            .pop()
            .flatten();
        if let Some(known) = known
            && (!bytes_too || self.blobs.stat(known.digest).await?.is_some())
        {
            return Ok((known, false));
        }
        let toc = self.ready(record.id, origins).await?;
        let encoded = self.encode(toc, encoding).await?;
        self.store
            .put_encoding(
                &key,
                &encoded,
                UnixMillis::from(std::time::SystemTime::now()),
            )
            .await?;
        Ok((encoded, true))
    }

    /// Encodes a layer whose bytes are here, into the blob store.
    async fn encode(&self, toc: Arc<Toc>, encoding: Encoding) -> Result<Encoded, LayersError> {
        let (pieces, mut receiver) = mpsc::channel::<Bytes>(AHEAD);
        let flats = self.flats.clone();
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let work = tokio::task::spawn_blocking(move || {
            let mut out = Pieces {
                pieces,
                buffer: Vec::with_capacity(PIECE),
            };
            let tar = compress(&toc, &flats, encoding, threads, &mut out)?;
            out.flush()?;
            Ok::<_, LayersError>(tar)
        });
        let mut writer = self.blobs.writer().await?;
        while let Some(piece) = receiver.recv().await {
            writer.write(piece).await?;
        }
        let tar = work.await.expect("encoding does not panic")?;
        // The store hashes what it keeps, so nobody else has to.
        let blob = writer.commit(None).await?;
        Ok(Encoded {
            digest: blob.digest,
            size: blob.size,
            diff_id: tar.diff_id,
        })
    }

    /// One encoding is made by one caller at a time.
    fn encoding_lock(&self, key: &EncodingKey) -> Arc<Mutex<()>> {
        let mut locks = self
            .encoding
            .lock()
            .expect("nobody panics while holding it");
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        locks.entry(key.clone()).or_default().clone()
    }
}

/// Hands what the encoder writes to the asynchronous side.
struct Pieces {
    pieces: mpsc::Sender<Bytes>,
    buffer: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.buffer, Vec::with_capacity(PIECE));
        self.pieces.blocking_send(piece.into()).map_err(|_| {
            io::Error::new(
                io::ErrorKind::BrokenPipe,
                "the blob store stopped taking bytes",
            )
        })
    }
}
