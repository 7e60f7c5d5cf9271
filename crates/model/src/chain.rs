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

    /// The content ids of every part of the chain that begins at its bottom, the shortest first; the last one is its own.
    pub fn ids(&self) -> impl Iterator<Item = Digest> {
        let mut hasher = DigestHasher::new("chain");
        self.0
            .iter()
            .map(move |layer| hasher.field(layer.0.as_bytes()).finish())
    }

    /// This chain with `layer` on top.
    pub fn with(&self, layer: LayerId) -> Self {
        let mut layers = self.0.clone();
        layers.push(layer);
        Self(layers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_chain_have_the_ids_of_chains() {
        let chain = Chain(
            ["a", "b", "c"]
                .map(|name| LayerId(Digest::of(name)))
                .to_vec(),
        );
        let ids: Vec<Digest> = chain.ids().collect();
        let part = |length: usize| Chain(chain.0[..length].to_vec()).id();
        assert_eq!(ids, [part(1), part(2), chain.id()]);
        assert_eq!(Chain::scratch().ids().count(), 0);
    }
}
