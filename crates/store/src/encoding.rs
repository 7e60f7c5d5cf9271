//! The compressed forms of layers that the farm made for exporters.

use async_trait::async_trait;
use buildyard_model::{Digest, LayerId};

use crate::{StoreError, UnixMillis};

/// Which form of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EncodingKey {
    /// The layer.
    pub layer: LayerId,
    /// `tar`, `gzip`, `zstd`.
    pub encoding: String,
    /// The compression level; 0 where there is none.
    pub level: i32,
    /// The version of the function that writes it, tar form included. A new version is a new encoding.
    pub version: u32,
}

/// What an encoding yields, always.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoded {
    /// The digest of its bytes.
    pub digest: Digest,
    /// Their number.
    pub size: u64,
    /// The digest of the uncompressed tar form.
    pub diff_id: Digest,
}

/// Encodings by layer. An entry stays when its blob is collected: the encoding can be made again, and a registry that
/// has the blob does not need it.
#[async_trait]
pub trait Encodings: Send + Sync {
    /// Records what an encoding yields. The layer must be recorded; `false` if it is not.
    async fn put_encoding(
        &self,
        key: &EncodingKey,
        encoded: &Encoded,
        now: UnixMillis,
    ) -> Result<bool, StoreError>;

    /// What `keys` yield, in their order.
    async fn encodings(&self, keys: &[EncodingKey]) -> Result<Vec<Option<Encoded>>, StoreError>;

    /// The layers that the farm encoded to tar forms with these digests, in their order: how an image that was pushed
    /// is recognised when it is pulled again.
    async fn layers_by_diff_id(
        &self,
        diff_ids: &[Digest],
    ) -> Result<Vec<Option<LayerId>>, StoreError>;
}
