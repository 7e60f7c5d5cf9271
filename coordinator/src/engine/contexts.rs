//! The trees of contexts that were transferred last, so that of the next transfer only changed files travel.

use std::sync::{Arc, Mutex};

use buildyard_layer::Toc;
use lru::LruCache;

/// How many contexts are remembered.
const KEPT: usize = 32;

/// Contexts by what their clients call them.
pub(super) struct Contexts(Mutex<LruCache<String, Arc<Toc>>>);

impl Default for Contexts {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(
            KEPT.try_into().expect("not zero"),
        )))
    }
}

impl Contexts {
    /// The last tree of this context; its flat files may be gone by now.
    pub(super) fn get(&self, key: &str) -> Option<Arc<Toc>> {
        self.0
            .lock()
            .expect("nobody panics while holding it")
            .get(key)
            .cloned()
    }

    pub(super) fn put(&self, key: String, toc: Arc<Toc>) {
        self.0
            .lock()
            .expect("nobody panics while holding it")
            .put(key, toc);
    }
}
