//! A result of a step: a chain of layers, the first one lowest.

use serde::{Deserialize, Serialize};

use crate::{Digest, DigestHasher, LayerId};

/// The layers of a result, lowest first. An empty chain is `scratch`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Chain(pub Vec<LayerId>);

impl Chain {
    /// The chain of no layers.
    pub fn scratch() -> Self {
        Self::default()
    }

    /// The content id of a root file system: the hash over the ids of its layers.
    pub fn id(&self) -> Digest {
        let mut hasher = DigestHasher::new("chain");
        for layer in &self.0 {
            hasher.field(layer.0.as_bytes());
        }
        hasher.finish()
    }

    /// This chain with `layer` on top.
    pub fn with(&self, layer: LayerId) -> Self {
        let mut layers = self.0.clone();
        layers.push(layer);
        Self(layers)
    }
}
