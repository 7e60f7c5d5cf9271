//! Blobs in memory, for tests and for what is small and passing.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use buildyard_model::Digest;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};

use crate::read::clip;
use crate::{BlobInfo, BlobReader, BlobStore, BlobWriter, CasError};

/// Blobs in memory. Clones share them.
#[derive(Debug, Clone)]
pub struct MemoryBlobs {
    blobs: Arc<Mutex<BTreeMap<Digest, Bytes>>>,
    capacity: u64,
}

impl Default for MemoryBlobs {
    fn default() -> Self {
        Self::with_capacity(u64::MAX)
    }
}

impl MemoryBlobs {
    /// No blobs; no limit but memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// No blobs; a commit that would take more than `capacity` bytes in all is refused as [`CasError::Full`].
    pub fn with_capacity(capacity: u64) -> Self {
        Self {
            blobs: Arc::default(),
            capacity,
        }
    }

    /// Puts `bytes` where the blob `digest` should be, as a failing disk would.
    pub fn damage(&self, digest: Digest, bytes: impl Into<Bytes>) {
        self.lock().insert(digest, bytes.into());
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Digest, Bytes>> {
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, bytes: Bytes) -> Result<BlobInfo, CasError> {
        let info = BlobInfo {
            digest: Digest::of(&bytes),
            size: bytes.len() as u64,
        };
        let mut blobs = self.lock();
        let others = blobs.iter().filter(|(digest, _)| **digest != info.digest);
        let used: u64 = others.map(|(_, bytes)| bytes.len() as u64).sum();
        if used.saturating_add(info.size) > self.capacity {
            return Err(CasError::Full {
                doing: "storing a blob",
                place: "memory".into(),
            });
        }
        blobs.insert(info.digest, bytes);
        Ok(info)
    }
}

#[async_trait]
impl BlobStore for MemoryBlobs {
    async fn stat(&self, digest: Digest) -> Result<Option<u64>, CasError> {
        Ok(self.lock().get(&digest).map(|bytes| bytes.len() as u64))
    }

    async fn open(
        &self,
        digest: Digest,
        range: Range<u64>,
    ) -> Result<Option<BlobReader>, CasError> {
        let Some(bytes) = self.lock().get(&digest).cloned() else {
            return Ok(None);
        };
        let size = bytes.len() as u64;
        let (start, length) = clip(&range, size);
        // Both lie within the bytes in memory, so they fit a usize.
        let part = bytes.slice(start as usize..(start + length) as usize);
        Ok(Some(BlobReader::new(size, length, Cursor::new(part))))
    }

    async fn writer(&self) -> Result<Box<dyn BlobWriter>, CasError> {
        Ok(Box::new(MemoryWriter {
            store: self.clone(),
            bytes: Vec::new(),
        }))
    }

    async fn delete(&self, digest: Digest) -> Result<bool, CasError> {
        Ok(self.lock().remove(&digest).is_some())
    }

    fn list(&self) -> BoxStream<'_, Result<BlobInfo, CasError>> {
        let blobs: Vec<_> = self
            .lock()
            .iter()
            .map(|(digest, bytes)| {
                Ok(BlobInfo {
                    digest: *digest,
                    size: bytes.len() as u64,
                })
            })
            .collect();
        stream::iter(blobs).boxed()
    }
}

struct MemoryWriter {
    store: MemoryBlobs,
    bytes: Vec<u8>,
}

#[async_trait]
impl BlobWriter for MemoryWriter {
    async fn write(&mut self, chunk: Bytes) -> Result<(), CasError> {
        self.bytes.extend_from_slice(&chunk);
        Ok(())
    }

    fn relax(&mut self) {}

    async fn commit(self: Box<Self>, expected: Option<Digest>) -> Result<BlobInfo, CasError> {
        let bytes = Bytes::from(self.bytes);
        let actual = Digest::of(&bytes);
        match expected {
            Some(expected) if expected != actual => Err(CasError::Mismatch { expected, actual }),
            _ => self.store.insert(bytes),
        }
    }
}
