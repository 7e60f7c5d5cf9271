//! A decorator that checks what is read.
//!
//! A blob that is read whole is hashed on the way. If it is not what its name says, it is removed and its reader ends
//! with [`Damaged`] instead of an end of file: whoever reads must treat an error as "there is no such blob". Reads of
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
        let checked = check(self.0.clone(), digest, reader.into_stream());
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

/// The same chunks, followed by an error if together they are not `expected`.
fn check<S: BlobStore + 'static>(
    store: Arc<S>,
    expected: Digest,
    chunks: Chunks,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let begin = Some((chunks, Sha256::new()));
    Box::pin(stream::unfold(begin, move |state| {
        let store = store.clone();
        async move {
            let (mut chunks, mut hasher) = state?;
            match chunks.next().await {
                Some(Ok(chunk)) => {
                    hasher.update(&chunk);
                    Some((Ok(chunk), Some((chunks, hasher))))
                }
                Some(Err(error)) => Some((Err(error), None)),
                None => {
                    let actual = Digest::from_bytes(hasher.finalize().into());
                    let damaged = remove_if_damaged(&*store, expected, actual).await?;
                    Some((
                        Err(io::Error::new(io::ErrorKind::InvalidData, damaged)),
                        None,
                    ))
                }
            }
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
