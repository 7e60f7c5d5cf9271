//! Results that were read before, decoded.
//!
//! What was recorded under a generation never changes, so whoever has the generation of a key's result from the database
//! may take the result itself from here: a long chain's outputs are not read and parsed anew by every build.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use crate::{Generation, StepResult};

/// How many ids of layers all kept results may have together; 32 bytes each.
const LAYERS: usize = 200_000;
/// What a result weighs beside its layers.
const ITSELF: usize = 10;

/// Decoded results, bounded. Only what the database has just named may be asked for.
#[derive(Debug)]
pub(super) struct Decoded(Mutex<Kept>);

#[derive(Debug)]
struct Kept {
    results: LruCache<Generation, Arc<StepResult>>,
    weight: usize,
}

impl Default for Decoded {
    fn default() -> Self {
        Self(Mutex::new(Kept {
            results: LruCache::unbounded(),
            weight: 0,
        }))
    }
}

impl Decoded {
    pub(super) fn get(&self, generation: Generation) -> Option<Arc<StepResult>> {
        self.lock().results.get(&generation).cloned()
    }

    pub(super) fn keep(&self, generation: Generation, result: Arc<StepResult>) {
        let mut kept = self.lock();
        kept.weight += weight(&result);
        if let Some(before) = kept.results.put(generation, result) {
            kept.weight -= weight(&before);
        }
        while kept.weight > LAYERS
            && let Some((_, oldest)) = kept.results.pop_lru()
        {
            kept.weight -= weight(&oldest);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn weight(result: &StepResult) -> usize {
    let chains = result.outputs.iter().flatten();
    ITSELF + chains.map(|chain| chain.layers().len()).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_by_its_layers() {
        let decoded = Decoded::default();
        let mut long = crate::suite::result("w", &["layer"]);
        let layer = long.outputs[0].as_ref().expect("a chain").layers()[0];
        long.outputs = vec![Some(buildyard_model::Chain::new(vec![layer; LAYERS / 4]))];
        let long = Arc::new(long);
        for generation in 0..5 {
            decoded.keep(Generation(generation), long.clone());
        }
        assert!(decoded.get(Generation(0)).is_none());
        assert!(
            decoded.get(Generation(1)).is_none(),
            "each weighs a little more"
        );
        assert!(decoded.get(Generation(4)).is_some());
        decoded.keep(Generation(4), long);
        assert!(decoded.get(Generation(2)).is_some(), "counted once");
    }
}
