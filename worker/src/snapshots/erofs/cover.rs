//! Which images show a chain: those of single layers, and of several neighbours merged into one.
//!
//! Overlayfs looks every path up in one lower directory after the other, and takes at most 500. So where a chain gets long, its
//! layers are merged: sixteen by sixteen (the layers of a group behind its last big one, since a big layer is not worth
//! writing again), and 256 by 256, whatever their size. Each step then costs one small image, and from time to time a
//! merge beside the steps: the whole cost of a chain grows with its length, not with its square.

use std::ops::Range;

use sha2::{Digest as _, Sha256};

use buildyard_model::LayerId;

/// Layers in a small and in a large group.
const GROUPS: [usize; 2] = [16, 256];
/// Entries of a layer that is too big to be written again with its small neighbours.
pub(super) const BIG: usize = 4096;

/// The names that images for parts of a chain have.
pub(super) struct Names<'c> {
    chain: &'c [LayerId],
    /// For each length of the chain's beginning: what tells it from all others.
    contexts: Vec<[u8; 32]>,
}

impl<'c> Names<'c> {
    pub(super) fn of(chain: &'c [LayerId]) -> Self {
        let mut context = [0; 32];
        let contexts = chain.iter().map(|layer| {
            let mut hash = Sha256::new();
            hash.update(context);
            hash.update(layer.digest().as_bytes());
            context = hash.finalize().into();
            context
        });
        Self {
            chain,
            contexts: contexts.collect(),
        }
    }

    pub(super) fn layer(&self, at: usize) -> LayerId {
        self.chain[at]
    }

    /// The name of a layer whose form doesn't depend on the chain below it.
    pub(super) fn free(&self, at: usize) -> String {
        self.chain[at].digest().hex()
    }

    /// The name of a layer as it is over the chain below it.
    pub(super) fn bound(&self, at: usize) -> String {
        self.merged(at..at + 1)
    }

    /// The name of several layers as they are over the chain below them.
    pub(super) fn merged(&self, range: Range<usize>) -> String {
        let (Some(top), Some(context)) = (
            self.chain.get(range.end.wrapping_sub(1)),
            self.contexts.get(range.end.wrapping_sub(1)),
        ) else {
            return String::new();
        };
        let (top, context) = (top.digest().hex(), hex::encode(&context[..16]));
        format!("{top}.{context}.{}", range.len())
    }

    /// Parts of the chain beginning at `from` that may be one image, the longest first.
    pub(super) fn parts(&self, from: usize) -> impl Iterator<Item = Range<usize>> {
        let length = self.chain.len();
        let [small, large] = GROUPS;
        let large = (from.is_multiple_of(large)).then(|| from..from + large);
        let small = from..(from + 1).next_multiple_of(small);
        let parts = large.into_iter().chain([small]);
        parts.filter(move |part| part.end <= length && part.len() > 1)
    }
}

/// Whether a group is complete with the first `length` layers that was not without the last of them.
pub(super) fn ends_a_group(length: usize) -> bool {
    length > 0 && length.is_multiple_of(GROUPS[0])
}

/// The groups that are complete with the first `length` layers, small ones first.
pub(super) fn groups(length: usize) -> impl Iterator<Item = Range<usize>> {
    GROUPS.into_iter().flat_map(move |size| {
        let ends = (1..=length / size).map(move |number| number * size);
        ends.map(move |end| end - size..end)
    })
}

/// The part of a group that is worth merging, where its layers have so many entries.
pub(super) fn worth(group: Range<usize>, entries: impl Fn(usize) -> usize) -> Range<usize> {
    if group.len() == GROUPS[1] {
        return group;
    }
    let last_big = group.clone().rev().find(|at| entries(*at) > BIG);
    last_big.map_or(group.start, |at| at + 1)..group.end
}

#[cfg(test)]
mod tests {
    use buildyard_model::Digest;

    use super::*;

    #[test]
    fn groups_are_complete_ones() {
        let found = |length| groups(length).collect::<Vec<_>>();
        assert!(found(15).is_empty());
        assert_eq!(found(33), [0..16, 16..32]);
        assert_eq!(found(256).len(), 17);
        assert_eq!(found(256).last(), Some(&(0..256)));
    }

    #[test]
    fn what_is_behind_the_last_big_layer_is_worth_merging() {
        let entries = |big: usize| move |at| if at == big { BIG + 1 } else { BIG };
        assert_eq!(worth(0..16, entries(99)), 0..16);
        assert_eq!(worth(16..32, entries(18)), 19..32);
        assert_eq!(worth(16..32, entries(31)), 32..32);
        assert_eq!(worth(0..256, entries(18)), 0..256);
    }

    #[test]
    fn names_tell_what_is_below() {
        let chain: Vec<LayerId> = (0..300)
            .map(|n| LayerId(Digest::of(format!("{n}"))))
            .collect();
        let mut other = chain.clone();
        other[0] = LayerId(Digest::of("other"));
        let (names, others) = (Names::of(&chain), Names::of(&other));
        assert_eq!(names.free(5), others.free(5));
        assert_ne!(names.bound(5), others.bound(5));
        assert_ne!(names.merged(4..6), names.bound(5));
        let parts = |from| names.parts(from).collect::<Vec<_>>();
        assert_eq!(parts(0), [0..256, 0..16]);
        assert_eq!((parts(5).len(), parts(5)[0].clone()), (1, 5..16));
        assert!(parts(15).is_empty() && parts(290).is_empty());
        assert_eq!((parts(256).len(), parts(256)[0].clone()), (1, 256..272));
    }
}
