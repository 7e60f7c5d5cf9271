//! Decoded TOCs of the layers used last.

use std::sync::{Arc, Mutex, MutexGuard};

use buildyard_layer::Toc;
use buildyard_model::LayerId;
use lru::LruCache;

/// How many entries (paths) all kept TOCs may have together; about 200 bytes each.
const ENTRIES: usize = 400_000;

/// TOCs in memory, bounded by the number of their entries.
pub(super) struct Memory(Mutex<Kept>);

struct Kept {
    tocs: LruCache<LayerId, Arc<Toc>>,
    entries: usize,
}

impl Default for Memory {
    fn default() -> Self {
        Self(Mutex::new(Kept {
            tocs: LruCache::unbounded(),
            entries: 0,
        }))
    }
}

impl Memory {
    pub(super) fn get(&self, id: LayerId) -> Option<Arc<Toc>> {
        self.lock().tocs.get(&id).cloned()
    }

    pub(super) fn put(&self, id: LayerId, toc: Arc<Toc>) {
        let mut kept = self.lock();
        kept.entries += toc.entries.len();
        if let Some(before) = kept.tocs.put(id, toc) {
            kept.entries -= before.entries.len();
        }
        while kept.entries > ENTRIES
            && kept.tocs.len() > 1
            && let Some((_, oldest)) = kept.tocs.pop_lru()
        {
            kept.entries -= oldest.entries.len();
        }
    }

    pub(super) fn forget(&self, id: LayerId) {
        let mut kept = self.lock();
        if let Some(toc) = kept.tocs.pop(&id) {
            kept.entries -= toc.entries.len();
        }
    }

    pub(super) fn clear(&self) {
        let mut kept = self.lock();
        kept.tocs.clear();
        kept.entries = 0;
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().expect("nobody panics while holding it")
    }
}
