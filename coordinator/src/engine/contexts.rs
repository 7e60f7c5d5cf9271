//! The contexts that were transferred last, so that of the next transfer only changed files travel.

use std::sync::{Mutex, MutexGuard};

use buildyard_model::LayerId;
use lru::LruCache;

/// How many contexts are remembered.
const KEPT: usize = 256;

/// The layers of contexts, by what their clients call them.
pub(super) struct Contexts(Mutex<LruCache<String, LayerId>>);

impl Default for Contexts {
    fn default() -> Self {
        let kept = KEPT.try_into().expect("not zero");
        Self(Mutex::new(LruCache::new(kept)))
    }
}

impl Contexts {
    /// The layer of the last transfer of this context; it may be gone by now.
    pub(super) fn get(&self, key: &str) -> Option<LayerId> {
        self.lock().get(key).copied()
    }

    pub(super) fn put(&self, key: String, layer: LayerId) {
        self.lock().put(key, layer);
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<String, LayerId>> {
        self.0.lock().expect("nobody panics while holding it")
    }
}
