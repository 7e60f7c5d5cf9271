//! Merged trees of chains, kept in memory while they are used.

use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use buildyard_layer::{Toc, Tree};
use buildyard_model::{Chain, Digest, LayerId};
use futures::{StreamExt, TryStreamExt};
use lru::LruCache;

use crate::RECENT_ENTRIES;
use crate::pull::PullError;

/// How many entries (paths) all kept trees may have together. A tree keeps the TOCs it was merged from, so it may take as
/// much as they do.
const TREE_ENTRIES: usize = RECENT_ENTRIES;
/// How many content ids are kept.
const CONTENT_IDS: usize = 20_000;

/// How many layers of one chain are read or fetched at once: as many requests as BuildKit sends to a registry at once.
pub const LAYERS_AT_ONCE: usize = 4;

/// Why a table of contents cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TocsError {
    /// The layer's bytes are nowhere: whatever contains it has to be made again.
    #[error("layer {layer} is lost: {reason}")]
    Lost {
        /// Which layer.
        layer: LayerId,
        /// Why.
        reason: String,
    },
    /// It could not be read this time.
    #[error("the table of contents of layer {layer} could not be read")]
    Failed {
        /// Which layer.
        layer: LayerId,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl TocsError {
    /// Why an image's layer could not be pulled, where that was it.
    pub fn pulling(&self) -> Option<&PullError> {
        match self {
            Self::Failed { source, .. } => source.downcast_ref(),
            Self::Lost { .. } => None,
        }
    }
}

/// Where tables of contents come from.
#[async_trait]
pub trait Tocs: Send + Sync {
    /// The layer's table of contents; `None` where it has to be made first and this side does not make it.
    async fn toc(&self, layer: LayerId) -> Result<Option<Arc<Toc>>, TocsError>;
}

/// The tables of contents of all layers of a chain, in its order, some of them asked for side by side; `None` where one was
/// never made.
async fn all(chain: &Chain, tocs: &dyn Tocs) -> Result<Option<Vec<Arc<Toc>>>, TocsError> {
    let asked: Vec<_> = chain
        .layers()
        .iter()
        .map(|layer| tocs.toc(*layer))
        .collect();
    let found = futures::stream::iter(asked).buffered(LAYERS_AT_ONCE);
    let found: Vec<Option<Arc<Toc>>> = found.try_collect().await?;
    Ok(found.into_iter().collect())
}

/// Trees and content ids in memory, bounded. One for a process.
pub struct Trees(Mutex<Kept>);

struct Kept {
    trees: LruCache<Digest, Arc<Tree>>,
    entries: usize,
    ids: LruCache<(Digest, Digest), Digest>,
}

impl Default for Trees {
    fn default() -> Self {
        let ids = LruCache::new(CONTENT_IDS.try_into().expect("not zero"));
        Self(Mutex::new(Kept {
            trees: LruCache::unbounded(),
            entries: 0,
            ids,
        }))
    }
}

impl Trees {
    /// The merged tree of a chain; `None` where a layer's table of contents was never made.
    ///
    /// # Errors
    /// Those of [`Tocs::toc`].
    pub async fn tree(
        &self,
        chain: &Chain,
        tocs: &dyn Tocs,
    ) -> Result<Option<Arc<Tree>>, TocsError> {
        let id = chain.id();
        if let Some(tree) = self.lock().trees.get(&id) {
            return Ok(Some(tree.clone()));
        }
        let below = chain.layers().split_last().and_then(|(top, below)| {
            let below = Chain::new(below.to_vec()).id();
            Some((*top, self.lock().trees.get(&below)?.clone()))
        });
        let merged = match below {
            // A step on what another one made: only its own layer is new.
            Some((top, below)) => tocs
                .toc(top)
                .await?
                .map(|toc| tokio::task::spawn_blocking(move || Arc::new(below.with(toc)))),
            None => all(chain, tocs)
                .await?
                .map(|layers| tokio::task::spawn_blocking(move || Arc::new(Tree::merge(&layers)))),
        };
        let Some(merged) = merged else {
            return Ok(None);
        };
        let tree = merged.await.expect("merging does not panic");
        self.keep(id, tree.clone());
        Ok(Some(tree))
    }

    /// Forgets all trees: a layer was made again, and its bytes lie elsewhere now.
    pub fn clear(&self) {
        let mut kept = self.lock();
        kept.trees.clear();
        kept.entries = 0;
    }

    fn keep(&self, id: Digest, tree: Arc<Tree>) {
        let mut kept = self.lock();
        kept.entries += tree.len();
        if let Some(before) = kept.trees.put(id, tree) {
            kept.entries -= before.len();
        }
        while kept.entries > TREE_ENTRIES
            && kept.trees.len() > 1
            && let Some((_, oldest)) = kept.trees.pop_lru()
        {
            kept.entries -= oldest.len();
        }
    }

    /// The content id of a view of a chain, if it was computed before.
    pub(crate) fn known_id(&self, chain: Digest, view: Digest) -> Option<Digest> {
        self.lock().ids.get(&(chain, view)).copied()
    }

    pub(crate) fn keep_id(&self, chain: Digest, view: Digest, id: Digest) {
        self.lock().ids.put((chain, view), id);
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().expect("nobody panics while holding it")
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Barrier;

    use super::*;

    /// Answers nobody until four ask at once.
    struct FourAtOnce(Barrier);

    #[async_trait]
    impl Tocs for FourAtOnce {
        async fn toc(&self, layer: LayerId) -> Result<Option<Arc<Toc>>, TocsError> {
            self.0.wait().await;
            let flat = buildyard_model::FlatId::from(layer.0);
            Ok(Some(Arc::new(Toc {
                flats: vec![flat],
                ..Toc::default()
            })))
        }
    }

    #[tokio::test]
    async fn the_layers_of_a_chain_are_asked_for_side_by_side_and_keep_their_order() {
        let layers: Vec<LayerId> = (0..8).map(|number| LayerId(Digest::of([number]))).collect();
        let tocs = FourAtOnce(Barrier::new(LAYERS_AT_ONCE));
        let found = all(&Chain::new(layers.clone()), &tocs)
            .await
            .unwrap()
            .unwrap();
        let flats: Vec<_> = found
            .iter()
            .map(|toc| LayerId(Digest::from_bytes(*toc.flats[0].as_bytes())))
            .collect();
        assert_eq!(flats, layers);
    }
}
