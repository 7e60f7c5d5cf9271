//! Where the bytes of a transfer go.

use buildyard_model::FlatId;

/// Why a pack could not take bytes.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PackError(pub String);

impl From<std::io::Error> for PackError {
    fn from(err: std::io::Error) -> Self {
        Self(err.to_string())
    }
}

/// A flat file that is being written. Its calls may block; they are made from a thread of their own.
///
/// Files come interleaved, so the place of each is fixed before its bytes arrive: the transfer gives every file the
/// next 512-byte boundary and as many bytes as its metadata says, and writes its pieces there. What is not written
/// (the padding) reads as zeros.
pub trait Pack: Send + 'static {
    /// Writes `bytes` at `offset`. Ranges never overlap; they come in any order.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), PackError>;

    /// All bytes are there, `length` of them with the padding: keeps the file under a name of its own. Dropping a
    /// pack without this discards it.
    fn finish(self: Box<Self>, length: u64) -> Result<FlatId, PackError>;
}
