//! The blob store as everybody uses it: each write asks the keeper for room, each blob and each use of one is noted.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use buildyard_cas::{BlobInfo, BlobReader, BlobStore, BlobWriter, CasError};
use buildyard_model::Digest;
use buildyard_store::Item;
use bytes::Bytes;
use futures::stream::BoxStream;

use super::Keeper;

/// Blobs under a keeper's eyes.
#[derive(Debug)]
pub(super) struct KeptBlobs(pub(super) Arc<Keeper>);

#[async_trait]
impl BlobStore for KeptBlobs {
    async fn stat(&self, digest: Digest) -> Result<Option<u64>, CasError> {
        self.0.blobs.stat(digest).await
    }

    async fn open(
        &self,
        digest: Digest,
        range: Range<u64>,
    ) -> Result<Option<BlobReader>, CasError> {
        self.0.note_use(Item::blob(digest));
        self.0.blobs.open(digest, range).await
    }

    async fn writer(&self) -> Result<Box<dyn BlobWriter>, CasError> {
        Ok(Box::new(KeptWriter {
            writer: self.0.blobs.writer().await?,
            claim: Claim {
                keeper: self.0.clone(),
                bytes: 0,
            },
        }))
    }

    async fn delete(&self, digest: Digest) -> Result<bool, CasError> {
        self.0.blobs.delete(digest).await
    }

    fn list(&self) -> BoxStream<'_, Result<BlobInfo, CasError>> {
        self.0.blobs.list()
    }
}

struct KeptWriter {
    writer: Box<dyn BlobWriter>,
    claim: Claim,
}

/// Room for a blob that is being written; given back unless it is kept.
struct Claim {
    keeper: Arc<Keeper>,
    bytes: u64,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.keeper.give_back_bytes(self.bytes);
    }
}

#[async_trait]
impl BlobWriter for KeptWriter {
    async fn write(&mut self, chunk: Bytes) -> Result<(), CasError> {
        let bytes = chunk.len() as u64;
        let claimed = self.claim.keeper.claim_bytes(bytes).await;
        claimed.map_err(|full| CasError::Refused(full.to_string()))?;
        self.claim.bytes += bytes;
        self.writer.write(chunk).await
    }

    fn relax(&mut self) {
        self.writer.relax();
    }

    async fn commit(mut self: Box<Self>, expected: Option<Digest>) -> Result<BlobInfo, CasError> {
        let blob = self.writer.commit(expected).await?;
        self.claim.bytes = 0;
        self.claim
            .keeper
            .note_stored(Item::blob(blob.digest), blob.size);
        Ok(blob)
    }
}
