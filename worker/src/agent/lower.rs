//! A merged tree as what a layer lies on.

use std::collections::HashMap;
use std::sync::Arc;

use buildyard_layer::{Entry, Kind, Lower, Tree};
use buildyard_model::FlatId;

/// A [`Tree`] behind the trait that unpacking and capturing ask.
pub(super) struct TreeLower {
    tree: Arc<Tree>,
    /// All flat files of the tree's layers, and where each is in the list.
    flats: Vec<FlatId>,
    numbers: HashMap<FlatId, u32>,
}

impl TreeLower {
    pub(super) fn new(tree: Arc<Tree>) -> Self {
        let mut flats = Vec::new();
        let mut numbers = HashMap::new();
        for flat in tree.layers().iter().flat_map(|layer| &layer.flats) {
            numbers.entry(*flat).or_insert_with(|| {
                flats.push(*flat);
                u32::try_from(flats.len() - 1).expect("a tree has fewer flat files than entries")
            });
        }
        Self {
            tree,
            flats,
            numbers,
        }
    }
}

impl Lower for TreeLower {
    fn entry(&self, path: &[u8]) -> Option<Entry> {
        let node = self.tree.get(path)?;
        let mut entry = node.entry.clone();
        entry.path = path.to_vec();
        if let Kind::File { extents, .. } = &mut entry.kind {
            for (extent, (flat, _)) in extents.iter_mut().zip(node.extents()) {
                extent.flat = self.numbers[&flat];
            }
        }
        Some(entry)
    }

    fn flats(&self) -> &[FlatId] {
        &self.flats
    }
}
