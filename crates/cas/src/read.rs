//! Readers, and reading small blobs whole.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use buildyard_model::Digest;
use bytes::Bytes;
use futures::stream::BoxStream;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio_util::io::ReaderStream;

use crate::{BlobInfo, BlobStore, CasError, WHOLE, is_damaged};

/// Chunks of a blob as a stream have this size, apart from the last.
const CHUNK: usize = 256 << 10;

/// Reads a blob or a part of it; [`AsyncRead`] or, by [`BlobReader::into_stream`], a stream of chunks.
pub struct BlobReader {
    size: u64,
    length: u64,
    bytes: Pin<Box<dyn AsyncRead + Send>>,
}

impl BlobReader {
    /// A reader of `length` bytes of a blob that has `size`.
    pub fn new(size: u64, length: u64, bytes: impl AsyncRead + Send + 'static) -> Self {
        Self {
            size,
            length,
            bytes: Box::pin(bytes),
        }
    }

    /// The size of the whole blob.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// How many bytes this reader yields.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The bytes in chunks.
    pub fn into_stream(self) -> BoxStream<'static, std::io::Result<Bytes>> {
        Box::pin(ReaderStream::with_capacity(self.bytes, CHUNK))
    }
}

impl AsyncRead for BlobReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        self.bytes.as_mut().poll_read(cx, buf)
    }
}

impl fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobReader")
            .field("size", &self.size)
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

/// A small blob's bytes. `None` where it is missing or, in a store that verifies, was found damaged;
/// [`CasError::TooLarge`] above `limit` bytes.
pub async fn read_all(
    blobs: &dyn BlobStore,
    digest: Digest,
    limit: u64,
) -> Result<Option<Bytes>, CasError> {
    let Some(mut reader) = blobs.open(digest, WHOLE).await? else {
        return Ok(None);
    };
    if reader.size() > limit {
        return Err(CasError::TooLarge {
            digest,
            size: reader.size(),
            limit,
        });
    }
    let mut bytes = Vec::new();
    match reader.read_to_end(&mut bytes).await {
        Ok(_) => Ok(Some(bytes.into())),
        Err(error) if is_damaged(&error) => Ok(None),
        Err(error) => Err(CasError::io("reading a blob", digest.to_string(), error)),
    }
}

/// Stores bytes that are in memory.
pub async fn put(
    blobs: &dyn BlobStore,
    bytes: impl Into<Bytes> + Send,
) -> Result<BlobInfo, CasError> {
    let mut writer = blobs.writer().await?;
    writer.write(bytes.into()).await?;
    writer.commit(None).await
}

/// Like [`put`], without waiting for the disk (see [`BlobWriter::relax`](crate::BlobWriter::relax)).
pub async fn put_relaxed(
    blobs: &dyn BlobStore,
    bytes: impl Into<Bytes> + Send,
) -> Result<BlobInfo, CasError> {
    let mut writer = blobs.writer().await?;
    writer.relax();
    writer.write(bytes.into()).await?;
    writer.commit(None).await
}

/// `range` as far as it lies in a blob of `size` bytes: where to begin, and how many bytes.
pub(crate) fn clip(range: &std::ops::Range<u64>, size: u64) -> (u64, u64) {
    let start = range.start.min(size);
    (start, range.end.clamp(start, size) - start)
}
