//! What can go wrong with blobs.

use std::io;
use std::path::PathBuf;

use buildyard_model::Digest;

/// Why an operation on blobs failed. A missing blob is no error.
#[derive(Debug, thiserror::Error)]
pub enum CasError {
    /// There is no room left.
    #[error("{doing}: no space is left in {place}; free some, or lower the cap of the store")]
    Full {
        /// What was tried.
        doing: &'static str,
        /// Where.
        place: PathBuf,
    },
    /// Whoever keeps the store within its limits refuses the write; the text says why.
    #[error("{0}")]
    Refused(String),
    /// The bytes that were written are not the blob that was announced.
    #[error("what was written is {actual}, not {expected} as announced; nothing was stored")]
    Mismatch {
        /// The digest announced.
        expected: Digest,
        /// The digest of the bytes.
        actual: Digest,
    },
    /// The blob is larger than the reader takes into memory.
    #[error("blob {digest} has {size} bytes, more than the {limit} that are read at once")]
    TooLarge {
        /// The blob.
        digest: Digest,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// A write before failed or was abandoned half-way, so what follows would have a hole before it.
    #[error("cannot go on with a blob after a write of it failed or was abandoned")]
    Abandoned,
    /// The machine refused.
    #[error("{doing} {place} failed")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        place: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

impl CasError {
    /// Takes an error of the machine; a lack of room becomes [`CasError::Full`].
    pub fn io(doing: &'static str, place: impl Into<PathBuf>, source: io::Error) -> Self {
        let place = place.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Full { doing, place }
            }
            _ => Self::Io {
                doing,
                place,
                source,
            },
        }
    }
}

/// A stored blob is not what its name says. It arrives inside the [`io::Error`] that ends its reader; by then the
/// blob is gone from the store, so that the next to ask finds a miss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("blob {expected} was damaged in the store (its bytes are {actual}) and has been removed")]
pub struct Damaged {
    /// The blob that was asked for.
    pub expected: Digest,
    /// The digest of the bytes that were there.
    pub actual: Digest,
}

/// Whether a reader ended because the blob was damaged: treat it as a miss.
pub fn is_damaged(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Damaged>())
}
