//! What takes room in the shared store, and when it was last used: what garbage collection judges by.

use async_trait::async_trait;
use buildyard_model::{BuildId, Digest, FlatId, LayerId};

use crate::{StoreError, UnixMillis};

/// The kinds of things that take room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ItemKind {
    /// A blob of the blob store; its id is the digest's text.
    Blob,
    /// A flat file; its id is 64 hex digits.
    Flat,
    /// A snapshot; its id is the snapshotter's text.
    Snapshot,
}

/// A thing that takes room.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Item {
    /// What it is.
    pub kind: ItemKind,
    /// Which one.
    pub id: String,
}

impl Item {
    /// A blob.
    pub fn blob(digest: Digest) -> Self {
        Self {
            kind: ItemKind::Blob,
            id: digest.to_string(),
        }
    }

    /// A flat file.
    pub fn flat(flat: FlatId) -> Self {
        Self {
            kind: ItemKind::Flat,
            id: flat.to_string(),
        }
    }

    /// A snapshot.
    pub fn snapshot(id: impl Into<String>) -> Self {
        Self {
            kind: ItemKind::Snapshot,
            id: id.into(),
        }
    }
}

/// Something that could be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The thing.
    pub item: Item,
    /// How much room it takes.
    pub bytes: u64,
    /// When it was last used.
    pub used: UnixMillis,
    /// What refers to it, in no order.
    pub needed_by: Vec<Referrer>,
}

/// What refers to an item, and so what its removal costs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Referrer {
    /// The layer's TOC or one of its flat files: without it the layer is lost (`remove_layers`).
    Layer(LayerId),
    /// The compressed form that a pulled layer came in: it can be fetched again.
    Pulled(LayerId),
    /// A form that an exporter wanted: it can be made again.
    Encoding(LayerId),
    /// The log of a step in the history, or of a cached result: it will be missing there.
    Log(BuildId),
}

/// The record of room and use.
#[async_trait]
pub trait Usage: Send + Sync {
    /// These things exist, take so many bytes, and are used now.
    async fn record_usage(&self, items: &[(Item, u64)], now: UnixMillis) -> Result<(), StoreError>;

    /// These things are used now. Unknown ones are ignored.
    async fn touch(&self, items: &[Item], now: UnixMillis) -> Result<(), StoreError>;

    /// How many bytes everything recorded takes.
    async fn total_bytes(&self) -> Result<u64, StoreError>;

    /// The least recently used things, at most `limit`, with what refers to them.
    async fn oldest(&self, limit: u32) -> Result<Vec<Candidate>, StoreError>;

    /// These things are gone.
    async fn remove_usage(&self, items: &[Item]) -> Result<(), StoreError>;
}
