//! What the engine keeps about one build while it goes on.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use buildyard_model::{Chain, LayerId, Platform, StepDigest};
use buildyard_registry::{Registry, Resolved};
use buildyard_store::{Pulled, Source};

use crate::keeper::Hold;
use crate::layers::Origins;

/// A build's memory: results of its steps, images it looked up, and its registry client, which no other build shares.
pub(super) struct BuildState {
    pub(super) registry: Arc<Registry>,
    results: Mutex<HashMap<StepDigest, Vec<Chain>>>,
    images: Mutex<HashMap<(String, Platform), Arc<Resolved>>>,
    started: Mutex<HashSet<StepDigest>>,
    noted: Mutex<HashMap<StepDigest, RanOn>>,
    recorded: AtomicBool,
    /// Patterns of the context's ignore file, to explain a missing file.
    pub(super) ignore: Mutex<Vec<String>>,
    /// What must stay in the store as long as the build runs.
    pub(super) hold: Hold,
}

/// Where a step ran.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RanOn {
    pub(super) worker: String,
    /// Empty, or the emulator.
    pub(super) emulator: String,
}

impl BuildState {
    pub(super) fn new(registry: Registry, hold: Hold) -> Self {
        Self {
            registry: Arc::new(registry),
            results: Mutex::default(),
            images: Mutex::default(),
            started: Mutex::default(),
            noted: Mutex::default(),
            recorded: AtomicBool::new(false),
            ignore: Mutex::default(),
            hold,
        }
    }

    /// Holds the layers of these results. `false`: they are being removed, so they count as gone.
    pub(super) fn holds<'a>(&self, chains: impl IntoIterator<Item = &'a Chain>) -> bool {
        let chains = chains.into_iter();
        self.hold
            .layers(chains.flat_map(|chain| chain.layers().iter().copied()))
    }

    pub(super) fn result(&self, step: &StepDigest) -> Option<Vec<Chain>> {
        lock(&self.results).get(step).cloned()
    }

    /// Notes what a step yields. Whoever does holds its layers.
    pub(super) fn remember(&self, step: StepDigest, chains: Vec<Chain>) {
        lock(&self.results).insert(step, chains);
    }

    pub(super) fn forget_result(&self, step: &StepDigest) {
        lock(&self.results).remove(step);
    }

    pub(super) fn image(&self, reference: &str, platform: &Platform) -> Option<Arc<Resolved>> {
        lock(&self.images)
            .get(&(reference.to_owned(), platform.clone()))
            .cloned()
    }

    pub(super) fn set_image(&self, reference: &str, platform: &Platform, image: Arc<Resolved>) {
        lock(&self.images).insert((reference.to_owned(), platform.clone()), image);
    }

    /// Where the layers of the build's images are had.
    pub(super) fn origins(&self) -> Origins {
        let images = lock(&self.images);
        let layers = images.values().flat_map(|image| layers_of(image)).collect();
        Origins::new(self.registry.clone(), layers)
    }

    /// What one of the build's images says of a layer.
    pub(super) fn layer_of_image(&self, layer: LayerId) -> Option<Pulled> {
        let images = lock(&self.images);
        let mut layers = images.values().flat_map(|image| layers_of(image));
        layers
            .find(|(id, _)| *id == layer)
            .map(|(_, pulled)| pulled)
    }

    /// Whether the history knows that the build has begun.
    pub(super) fn is_recorded(&self) -> bool {
        self.recorded.load(Ordering::Relaxed)
    }

    pub(super) fn note_recorded(&self) {
        self.recorded.store(true, Ordering::Relaxed);
    }

    /// Notes that a step was shown as started. Returns whether it was before.
    pub(super) fn note_started(&self, step: StepDigest) -> bool {
        !lock(&self.started).insert(step)
    }

    pub(super) fn has_started(&self, step: &StepDigest) -> bool {
        lock(&self.started).contains(step)
    }

    pub(super) fn note_ran_on(&self, step: StepDigest, ran_on: RanOn) {
        lock(&self.noted).insert(step, ran_on);
    }

    pub(super) fn ran_on(&self, step: &StepDigest) -> Option<RanOn> {
        lock(&self.noted).get(step).cloned()
    }
}

/// The layers of an image, as it names them.
pub(super) fn layers_of(image: &Resolved) -> impl Iterator<Item = (LayerId, Pulled)> {
    let layers = image.layers.iter();
    layers.map(|layer| {
        let pulled = Pulled {
            blob: layer.descriptor.digest,
            size: layer.descriptor.size,
            media_type: layer.descriptor.media_type.to_string(),
            sources: vec![Source {
                registry: image.reference.registry.clone(),
                repository: image.reference.repository.clone(),
            }],
        };
        (LayerId(layer.diff_id), pulled)
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics while holding it")
}
