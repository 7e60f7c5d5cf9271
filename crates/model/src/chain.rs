//! A result of a step: a chain of layers, the first one lowest.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Digest, DigestHasher, LayerId};

/// The layers of a result, lowest first. An empty chain is `scratch`.
///
/// Cheap to clone, and clones share their id: the steps of a long chain, and the builds that go through it, hash it once.
#[derive(Clone, Default)]
pub struct Chain(Arc<Parts>);

#[derive(Default)]
struct Parts {
    layers: Vec<LayerId>,
    id: OnceLock<Digest>,
}

impl Chain {
    /// The chain of these layers, lowest first.
    pub fn new(layers: Vec<LayerId>) -> Self {
        Self(Arc::new(Parts {
            layers,
            id: OnceLock::new(),
        }))
    }

    /// The chain of no layers.
    pub fn scratch() -> Self {
        Self::default()
    }

    /// Its layers, lowest first.
    pub fn layers(&self) -> &[LayerId] {
        &self.0.layers
    }

    /// The content id of a root file system: the hash over the ids of its layers.
    pub fn id(&self) -> Digest {
        *self.0.id.get_or_init(|| {
            let mut hasher = DigestHasher::new("chain");
            for layer in self.layers() {
                hasher.field(layer.0.as_bytes());
            }
            hasher.finish()
        })
    }

    /// The content ids of every part of the chain that begins at its bottom, the shortest first; the last one is its own.
    pub fn ids(&self) -> impl Iterator<Item = Digest> {
        let mut hasher = DigestHasher::new("chain");
        self.layers()
            .iter()
            .map(move |layer| hasher.field(layer.0.as_bytes()).finish())
    }

    /// This chain with `layer` on top.
    pub fn with(&self, layer: LayerId) -> Self {
        let mut layers = Vec::with_capacity(self.layers().len() + 1);
        layers.extend_from_slice(self.layers());
        layers.push(layer);
        Self::new(layers)
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Chain").field(&self.layers()).finish()
    }
}

impl PartialEq for Chain {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.layers() == other.layers()
    }
}

impl Eq for Chain {}

impl Hash for Chain {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.layers().hash(state);
    }
}

impl Serialize for Chain {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.layers().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Chain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_layers_are_equal_chains_with_one_id() {
        let layer = |name: &str| LayerId(Digest::of(name));
        let (one, other) = (
            Chain::new(vec![layer("a"), layer("b")]),
            Chain::scratch().with(layer("a")).with(layer("b")),
        );
        assert_eq!(one, other);
        assert_eq!(one.id(), other.id());
        assert_eq!(one.clone().id(), one.id());
        let upside_down = Chain::new(vec![layer("b"), layer("a")]);
        assert_ne!(one, upside_down);
        assert_ne!(one.id(), upside_down.id());
        assert_ne!(Chain::scratch().id(), one.id());
    }

    #[test]
    fn the_parts_of_a_chain_have_the_ids_of_chains() {
        let layers = ["a", "b", "c"].map(|name| LayerId(Digest::of(name)));
        let chain = Chain::new(layers.to_vec());
        let ids: Vec<Digest> = chain.ids().collect();
        let part = |length: usize| Chain::new(layers[..length].to_vec()).id();
        assert_eq!(ids, [part(1), part(2), chain.id()]);
        assert_eq!(Chain::scratch().ids().count(), 0);
    }
}
