//! Blobs: bytes known by their sha256.
//!
//! [`BlobStore`] is the seam. Its implementations: [`MemoryBlobs`] for tests, [`DiskBlobs`] for a machine's directory;
//! more live beside what they talk to. [`Verified`] is a decorator that makes any of them check what it reads.
//! [`open_disk`] stacks what a data directory wants. Every implementation runs `suite` (feature `suite`).
//!
//! How to use a store:
//!
//! ```text
//!   let mut writer = blobs.writer().await?;          // nothing is visible yet
//!   writer.write(chunk).await?;                      // as often as there are bytes
//!   let blob = writer.commit(Some(expected)).await?; // checks the digest; from here on everybody sees it
//!
//!   blobs.open(blob.digest, WHOLE).await?            // None is a miss, never an error
//! ```
//!
//! A writer that is dropped leaves nothing behind. Two writers of one blob do not disturb each other, and whoever
//! reads meanwhile reads one of the two, which are equal.
//!
//! [`lock_data_dir`], [`free_space`] and [`SizeLimit`] are here because they are about the directory that the blobs lie in.
//!
//! This crate does not know what blobs mean, what refers to them or which of them may go: `store` does.

mod data_dir;
mod disk;
mod error;
mod limit;
mod memory;
mod read;
#[cfg(any(test, feature = "suite"))]
pub mod suite;
#[cfg(test)]
mod tests;
mod verified;

use std::fmt;
use std::ops::Range;

use async_trait::async_trait;
use buildyard_model::Digest;
use bytes::Bytes;
use futures::stream::BoxStream;

pub use data_dir::{DirGuard, DirLocked, LockError, disk_size, free_space, lock_data_dir};
pub use disk::{DiskBlobs, Durability, open_disk};
pub use error::{CasError, Damaged, is_damaged};
pub use limit::{BadSizeLimit, SizeLimit};
pub use memory::MemoryBlobs;
pub use read::{BlobReader, put, put_relaxed, read_all};
pub use verified::Verified;

/// The range of a whole blob, whatever its size.
pub const WHOLE: Range<u64> = 0..u64::MAX;

/// A blob that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlobInfo {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// A store of blobs. Absence is `None`, also where a blob was there a moment ago.
#[async_trait]
pub trait BlobStore: Send + Sync + fmt::Debug {
    /// The blob's size in bytes.
    async fn stat(&self, digest: Digest) -> Result<Option<u64>, CasError>;

    /// Opens a part of a blob. A range that ends beyond the blob ends with it ([`WHOLE`]); one that begins beyond it
    /// is empty. The reader stays valid when the blob is deleted or replaced meanwhile.
    async fn open(&self, digest: Digest, range: Range<u64>)
    -> Result<Option<BlobReader>, CasError>;

    /// Begins a new blob.
    async fn writer(&self) -> Result<Box<dyn BlobWriter>, CasError>;

    /// Removes a blob. Whether it was there.
    async fn delete(&self, digest: Digest) -> Result<bool, CasError>;

    /// All blobs, in no order. Blobs that come or go meanwhile may be listed or not.
    fn list(&self) -> BoxStream<'_, Result<BlobInfo, CasError>>;
}

/// A blob that is being written. Dropping it discards what was written.
#[async_trait]
pub trait BlobWriter: Send {
    /// Appends bytes. After an error the writer is of no use any more.
    async fn write(&mut self, chunk: Bytes) -> Result<(), CasError>;

    /// Its commit need not wait for the disk: what refers to the blob is not waited for either, or can do without it. A crash
    /// of the machine may then leave it empty or short, which is found when it is read whole.
    fn relax(&mut self);

    /// Makes the blob visible, all at once. With `expected`, only if that is its digest
    /// ([`CasError::Mismatch`] otherwise). A blob that exists is replaced by the same bytes, which heals a damaged one.
    async fn commit(self: Box<Self>, expected: Option<Digest>) -> Result<BlobInfo, CasError>;
}
