//! The keys that steps had when they were last seen, so that they can be looked up before they are known for sure.
//!
//! A step's digest covers its operation and, through its inputs' digests, everything before it but for what comes from
//! outside: while contexts and tags stay, its key does too. Nothing relies on that; a key that has changed since costs a
//! look-up.

use std::sync::{Mutex, MutexGuard};

use buildyard_model::{StepDigest, StepKey};
use lru::LruCache;

/// How many steps are remembered; 100 bytes each.
const KEPT: usize = 20_000;

/// Keys by step.
pub(super) struct Foretold(Mutex<LruCache<StepDigest, StepKey>>);

impl Default for Foretold {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(
            KEPT.try_into().expect("not zero"),
        )))
    }
}

impl Foretold {
    /// A step has this key.
    pub(super) fn note(&self, step: StepDigest, key: StepKey) {
        self.lock().put(step, key);
    }

    /// The last keys of those of these steps that are remembered.
    pub(super) fn of(&self, steps: impl Iterator<Item = StepDigest>) -> Vec<StepKey> {
        let mut kept = self.lock();
        steps.filter_map(|step| kept.get(&step).copied()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<StepDigest, StepKey>> {
        self.0.lock().expect("nobody panics while holding it")
    }
}
