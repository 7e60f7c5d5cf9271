//! What the clones of one [`FlatFiles`](super::FlatFiles) know together.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};

use buildyard_model::FlatId;

use super::Stamp;

/// So many flat files are known to be written here. To forget one costs whoever wants to be sure of it reading it.
const WRITTEN: usize = 1 << 14;

/// Whoever keeps something that is of no use without its flat file.
pub trait FlatWatcher: Send + Sync {
    /// The flat file was removed. Called after it is gone, by whoever removed it.
    fn removed(&self, flat: FlatId);
}

/// Shared by all clones.
#[derive(Default)]
pub(super) struct Shared {
    written: Mutex<HashMap<FlatId, Stamp>>,
    watchers: Mutex<Vec<Weak<dyn FlatWatcher>>>,
}

impl Shared {
    /// This process has written the flat file, whose digests were taken meanwhile.
    pub(super) fn note_written(&self, flat: FlatId, stamp: Stamp) {
        let mut written = lock(&self.written);
        if written.len() >= WRITTEN {
            written.clear();
        }
        written.insert(flat, stamp);
    }

    pub(super) fn written(&self, flat: FlatId) -> Option<Stamp> {
        lock(&self.written).get(&flat).copied()
    }

    pub(super) fn watch(&self, watcher: Weak<dyn FlatWatcher>) {
        let mut watchers = lock(&self.watchers);
        watchers.retain(|watcher| watcher.strong_count() > 0);
        watchers.push(watcher);
    }

    pub(super) fn removed(&self, flat: FlatId) {
        lock(&self.written).remove(&flat);
        let watchers = lock(&self.watchers).clone();
        for watcher in watchers.iter().filter_map(Weak::upgrade) {
            watcher.removed(flat);
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("written", &lock(&self.written).len())
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that could panic happens in the middle of a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
