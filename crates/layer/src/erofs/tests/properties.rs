//! Arbitrary layers.

use std::sync::Arc;

use proptest::prelude::*;

use super::read::{expected, over, written};
use crate::testing::{any_items, flats, layer};
use crate::{FlatFiles, Kind, Toc, Tree};

/// Layers that fit on each other: links to what is not below are left out.
fn chain(layers: &[Vec<crate::testing::Item>], flats: &FlatFiles) -> Vec<Arc<Toc>> {
    let mut chain: Vec<Arc<Toc>> = Vec::new();
    for items in layers {
        let mut toc = layer(items, flats);
        let below = Tree::merge(&chain);
        toc.entries.retain(|entry| match &entry.kind {
            Kind::LinkBelow { target } => {
                below.get(target).is_some_and(|node| !node.is_directory())
            }
            _ => true,
        });
        chain.push(Arc::new(toc));
    }
    chain
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_chain_as_one_image_is_its_tree(layers in prop::collection::vec(any_items(), 1..4)) {
        let (_dir, flats) = flats();
        let chain = chain(&layers, &flats);
        let written = written(&chain, &[], &flats);
        let (paths, inodes) = written.read();
        prop_assert_eq!(&paths, &expected(&chain, &flats));
        let tree = Tree::merge(&chain);
        for one in tree.walk(b"") {
            for other in tree.walk(b"").filter(|node| node.is_file() && one.is_file()) {
                let same = inodes[one.path].0 == inodes[other.path].0;
                prop_assert_eq!(one.inode == other.inode, same, "{} {}", one, other);
            }
            let links = tree.walk(b"").filter(|node| node.inode == one.inode).count();
            if one.is_file() {
                prop_assert_eq!(inodes[one.path].1 as usize, links);
            }
        }
    }

    #[test]
    fn images_over_each_other_are_the_tree(
        layers in prop::collection::vec(any_items(), 2..5),
        cut in any::<prop::sample::Index>(),
    ) {
        let (_dir, flats) = flats();
        let chain = chain(&layers, &flats);
        let (below, above) = chain.split_at(cut.index(chain.len() - 1) + 1);
        let (lower, _) = written(below, &[], &flats).read();
        let (upper, _) = written(above, below, &flats).read();
        prop_assert_eq!(over(&lower, &upper), expected(&chain, &flats));
    }

    #[test]
    fn the_same_layers_are_the_same_bytes(layers in prop::collection::vec(any_items(), 1..3)) {
        let (_dir, flats) = flats();
        let chain = chain(&layers, &flats);
        prop_assert_eq!(written(&chain, &[], &flats).bytes, written(&chain, &[], &flats).bytes);
    }
}
