//! A decorator that checks what is read.
//!
//! A blob that is read whole is hashed on the way. If it is not what its name says, it is removed and its reader ends
//! with [`Damaged`] instead of the last bytes: whoever reads must treat an error as "there is no such blob". Reads of
//! a part cannot be checked and are passed on; who keeps digests of parts (a TOC does) checks those.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use buildyard_model::Digest;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use sha2::{Digest as _, Sha256};
use tokio_util::io::StreamReader;

use crate::{BlobInfo, BlobReader, BlobStore, BlobWriter, CasError, Damaged};

/// A store whose whole reads are checked. Clones share the store within.
#[derive(Debug)]
pub struct Verified<S>(Arc<S>);

impl<S> Clone for Verified<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S: BlobStore + 'static> Verified<S> {
    /// Checks what is read from `inner`.
    pub fn new(inner: S) -> Self {
        Self(Arc::new(inner))
    }

    /// The store within.
    pub fn inner(&self) -> &S {
        &self.0
    }
}

#[async_trait]
impl<S: BlobStore + 'static> BlobStore for Verified<S> {
    async fn stat(&self, digest: Digest) -> Result<Option<u64>, CasError> {
        self.0.stat(digest).await
    }

    async fn open(
        &self,
        digest: Digest,
        range: Range<u64>,
    ) -> Result<Option<BlobReader>, CasError> {
        let Some(reader) = self.0.open(digest, range).await? else {
            return Ok(None);
        };
        if reader.length() < reader.size() {
            return Ok(Some(reader));
        }
        let size = reader.size();
        let checked = check(self.0.clone(), digest, size, reader.into_stream());
        Ok(Some(BlobReader::new(
            size,
            size,
            StreamReader::new(checked),
        )))
    }

    async fn writer(&self) -> Result<Box<dyn BlobWriter>, CasError> {
        self.0.writer().await
    }

    async fn delete(&self, digest: Digest) -> Result<bool, CasError> {
        self.0.delete(digest).await
    }

    fn list(&self) -> BoxStream<'_, Result<BlobInfo, CasError>> {
        self.0.list()
    }
}

type Chunks = BoxStream<'static, io::Result<Bytes>>;

/// The same `size` bytes, but an error in place of the last chunk if together they are not `expected`.
fn check<S: BlobStore + 'static>(
    store: Arc<S>,
    expected: Digest,
    size: u64,
    chunks: Chunks,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let begin = Some((chunks, Sha256::new(), size));
    Box::pin(stream::unfold(begin, move |state| {
        let store = store.clone();
        async move {
            let (mut chunks, mut hasher, left) = state?;
            let next = chunks.next().await;
            let left = match &next {
                Some(Ok(chunk)) => {
                    hasher.update(chunk);
                    left.saturating_sub(chunk.len() as u64)
                }
                Some(Err(_)) => return next.map(|error| (error, None)),
                None => 0,
            };
            if left == 0 {
                let actual = Digest::from_bytes(hasher.clone().finalize().into());
                if let Some(damaged) = remove_if_damaged(&*store, expected, actual).await {
                    let error = io::Error::new(io::ErrorKind::InvalidData, damaged);
                    return Some((Err(error), None));
                }
            }
            next.map(|chunk| (chunk, Some((chunks, hasher, left))))
        }
    }))
}

async fn remove_if_damaged(
    store: &dyn BlobStore,
    expected: Digest,
    actual: Digest,
) -> Option<Damaged> {
    if expected == actual {
        return None;
    }
    tracing::warn!(digest = %expected, %actual, "a damaged blob is removed");
    if let Err(error) = store.delete(expected).await {
        tracing::warn!(digest = %expected, %error, "a damaged blob could not be removed");
    }
    Some(Damaged { expected, actual })
}
