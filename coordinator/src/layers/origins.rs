//! Where one build has its images' layers from.
//!
//! Two images may name one diff id with different blobs: packed differently, or because one of them lies. The records of
//! the farm keep one of them; a build pulls and pushes what its own images name.

use std::collections::HashMap;
use std::sync::Arc;

use buildyard_model::LayerId;
use buildyard_registry::Registry;
use buildyard_store::{LayerRecord, Pulled};

/// The registries as one build may use them, and what its images say of their layers.
pub struct Origins {
    pub(super) registry: Arc<Registry>,
    images: HashMap<LayerId, Pulled>,
}

impl Origins {
    /// Those of a build with this registry client and these layers of images.
    pub fn new(registry: Arc<Registry>, images: HashMap<LayerId, Pulled>) -> Self {
        Self { registry, images }
    }

    /// The blob of an image's layer; `None` for one that a step made.
    pub(super) fn of<'a>(&'a self, record: &'a LayerRecord) -> Option<&'a Pulled> {
        self.images.get(&record.id).or(record.pulled.as_ref())
    }
}
