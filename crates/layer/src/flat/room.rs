//! Room on the disk, as those who write flat files ask for it.
//!
//! Who keeps the disk within its limits is told of every write before it happens and of every flat file that came into
//! being; what goes to make room is decided there. Without one, writers go on until the disk is full.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use buildyard_model::FlatId;

/// Whoever keeps the disk within its limits. Its calls may block: they are made from threads that may wait.
pub trait Room: fmt::Debug + Send + Sync {
    /// `bytes` more are about to be written. Returns once there is room for them.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`] if there is none and none can be made; nothing is written then.
    fn claim(&self, bytes: u64) -> io::Result<()>;

    /// Claimed bytes that take no room after all: what was written was thrown away.
    fn give_back(&self, bytes: u64);

    /// A flat file is in its place, or more of it is here.
    fn kept(&self, flat: FlatId);

    /// A flat file that took `bytes` was removed.
    fn removed(&self, flat: FlatId, bytes: u64);
}

/// The room that one writer has claimed. What is not [`Claimed::keep`]t is given back when it is dropped.
#[derive(Debug, Default)]
pub(super) struct Claimed {
    room: Option<Arc<dyn Room>>,
    bytes: AtomicU64,
}

impl Claimed {
    pub(super) fn new(room: Option<Arc<dyn Room>>) -> Self {
        Self {
            room,
            bytes: AtomicU64::new(0),
        }
    }

    pub(super) fn more(&self, bytes: u64) -> io::Result<()> {
        if let Some(room) = &self.room {
            room.claim(bytes)?;
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        Ok(())
    }

    pub(super) fn keep(&self, flat: FlatId) {
        self.bytes.store(0, Ordering::Relaxed);
        if let Some(room) = &self.room {
            room.kept(flat);
        }
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        let bytes = self.bytes.load(Ordering::Relaxed);
        if let Some(room) = self.room.as_ref().filter(|_| bytes > 0) {
            room.give_back(bytes);
        }
    }
}

/// Says which disk is full.
pub(super) fn naming(directory: &Path, error: io::Error) -> io::Error {
    if error.raw_os_error().is_none() {
        return error;
    }
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => io::Error::new(
            io::ErrorKind::StorageFull,
            format!(
                "no space is left on the disk of {}; free some and build again",
                directory.display()
            ),
        ),
        _ => error,
    }
}
