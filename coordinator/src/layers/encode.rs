//! Making the encoded form of a layer: read, compressed on all processors, into the blob store, once.

use std::io::{self, Write};
use std::sync::Arc;

use buildyard_layer::{ENCODER_VERSION, Encoding, TAR_FORM_VERSION, Toc, compress};
use buildyard_model::LayerId;
use buildyard_store::{Encoded, EncodingKey, LayerRecord, UnixMillis};
use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, mpsc};

use super::kept::Earlier;
use super::{LayerStore, LayersError, Origins};

/// Bytes that the encoder hands over at once.
const PIECE: usize = 256 << 10;
/// Pieces between the encoder and the blob store.
const AHEAD: usize = 8;

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
    pub(super) async fn encoded(
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
        let permit = self.encoders.acquire().await;
        let _permit = permit.expect("the semaphore is never closed");
        let (pieces, mut receiver) = mpsc::channel::<Bytes>(AHEAD);
        let flats = self.flats.clone();
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let earlier = Earlier {
            kept: self.kept.clone(),
            blobs: self.blobs.clone(),
            encoding,
            runtime: Handle::current(),
        };
        let work = tokio::task::spawn_blocking(move || {
            let mut out = Pieces {
                pieces,
                buffer: Vec::with_capacity(PIECE),
            };
            let compressed = compress(&toc, &flats, encoding, threads, Some(&earlier), &mut out)?;
            out.flush()?;
            Ok::<_, LayersError>(compressed)
        });
        let mut writer = self.blobs.writer().await?;
        writer.relax();
        while let Some(piece) = receiver.recv().await {
            writer.write(piece).await?;
        }
        let compressed = work.await.expect("encoding does not panic")?;
        // The store hashes what it keeps, so nobody else has to.
        let blob = writer.commit(None).await?;
        self.kept.keep(encoding, blob.digest, &compressed.blocks);
        Ok(Encoded {
            digest: blob.digest,
            size: blob.size,
            diff_id: compressed.tar.diff_id,
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
