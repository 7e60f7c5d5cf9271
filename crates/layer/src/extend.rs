//! A tree with one more layer on top, made from the tree that is there: what the layer does not touch is copied as it lies.
//!
//! The outcome is that of merging all layers anew (`merge`). The cost is that of the layer's entries and of copying
//! the nodes, a few bytes each, whatever the number of layers below.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::path::{self, path_cmp};
use crate::tree::{At, IMPLIED, Slot, Tree, implied_directory};
use crate::{Entry, Kind, Toc};

/// A path that the layer changes, or that leads to one.
struct Node<'a> {
    path: &'a [u8],
    /// `None` for a directory that no layer lists.
    at: Option<(At, At)>,
    directory: bool,
    /// The slot below, where its children are seen but for what has changed.
    base: Option<usize>,
    /// Children by name; `None` for one that is gone.
    changed: BTreeMap<&'a [u8], Option<usize>>,
}

impl<'a> Node<'a> {
    fn fresh(path: &'a [u8]) -> Self {
        Self {
            path,
            at: None,
            directory: false,
            base: None,
            changed: BTreeMap::new(),
        }
    }

    fn empty(&mut self) {
        self.base = None;
        self.changed.clear();
    }
}

/// A tree's nodes with one more layer.
pub(crate) struct Extended {
    pub(crate) slots: Vec<Slot>,
    pub(crate) implied: Vec<Entry>,
    pub(crate) unresolved: Vec<Vec<u8>>,
}

/// Puts `toc` on top of `below`; it will be the layer after the last one there.
pub(crate) fn extend(below: &Tree, toc: &Arc<Toc>) -> Extended {
    let mut extension = Extension {
        below,
        nodes: vec![of_slot(below, 0, b"")],
        unresolved: below.unresolved().to_vec(),
    };
    extension.apply(toc, number(below.layers().len()));
    let (slots, implied) = extension.lay_out();
    Extended {
        slots,
        implied,
        unresolved: extension.unresolved,
    }
}

fn of_slot<'a>(below: &Tree, index: usize, path: &'a [u8]) -> Node<'a> {
    let slot = below.slots()[index];
    Node {
        at: Some((slot.path, slot.data)),
        directory: is_directory(below, slot),
        base: Some(index),
        ..Node::fresh(path)
    }
}

fn is_directory(tree: &Tree, slot: Slot) -> bool {
    matches!(tree.entry(slot.data).kind, Kind::Directory { .. })
}

struct Extension<'a> {
    below: &'a Tree,
    /// Index 0 is the root. Removed nodes stay in the vector, unreachable.
    nodes: Vec<Node<'a>>,
    unresolved: Vec<Vec<u8>>,
}

impl<'a> Extension<'a> {
    fn apply(&mut self, toc: &'a Toc, layer: u32) {
        for (index, entry) in toc.entries.iter().enumerate() {
            let at = At {
                layer,
                entry: number(index),
            };
            let Some(parent) = path::parent(&entry.path) else {
                self.set_root(entry, at);
                continue;
            };
            let data = match &entry.kind {
                Kind::Whiteout => {
                    self.remove(parent, &entry.path);
                    continue;
                }
                // As it was before the layer.
                Kind::LinkBelow { target } => self.link_target(target),
                _ => Some(at),
            };
            match data {
                Some(data) => self.set(parent, entry, (at, data)),
                None => self.unresolved.push(entry.path.clone()),
            }
        }
    }

    fn set_root(&mut self, entry: &Entry, at: At) {
        if let Kind::Directory { opaque } = entry.kind {
            self.nodes[0].at = Some((at, at));
            if opaque {
                self.nodes[0].empty();
            }
        }
    }

    fn set(&mut self, parent: &'a [u8], entry: &'a Entry, at: (At, At)) {
        let parent = self.make_directories(parent);
        let index = self.child(parent, &entry.path);
        let node = &mut self.nodes[index];
        node.at = Some(at);
        node.directory = matches!(entry.kind, Kind::Directory { .. });
        if entry.kind != (Kind::Directory { opaque: false }) {
            node.empty();
        }
    }

    /// The child of `parent` at `path`, made where it is missing.
    fn child(&mut self, parent: usize, path: &'a [u8]) -> usize {
        let name = path::file_name(path);
        let node = match self.nodes[parent].changed.get(name) {
            Some(Some(index)) => return *index,
            Some(None) => Node::fresh(path),
            None => match self.slot_below(parent, path) {
                Some(slot) => of_slot(self.below, slot, path),
                None => Node::fresh(path),
            },
        };
        let index = self.nodes.len();
        self.nodes.push(node);
        self.nodes[parent].changed.insert(name, Some(index));
        index
    }

    /// Where a child that has not changed lies in the tree below.
    fn slot_below(&self, parent: usize, path: &[u8]) -> Option<usize> {
        self.nodes[parent].base.and_then(|_| self.below.find(path))
    }

    /// The node of a directory, made with its parents where they are missing or something else.
    fn make_directories(&mut self, dir: &'a [u8]) -> usize {
        let mut index = 0;
        for part in prefixes(dir) {
            index = self.child(index, part);
            if !self.nodes[index].directory {
                self.nodes[index] = Node {
                    directory: true,
                    ..Node::fresh(part)
                };
            }
        }
        index
    }

    fn remove(&mut self, parent: &'a [u8], path: &'a [u8]) {
        let mut index = 0;
        for part in prefixes(parent) {
            let changed = self.nodes[index].changed.get(path::file_name(part));
            let is_there = match changed {
                Some(changed) => changed.is_some(),
                None => self.slot_below(index, part).is_some(),
            };
            if !is_there {
                return;
            }
            index = self.child(index, part);
        }
        let name = path::file_name(path);
        self.nodes[index].changed.insert(name, None);
    }

    /// The entry that a link to `target` shares its inode with.
    fn link_target(&self, target: &[u8]) -> Option<At> {
        let slot = self.below.slots()[self.below.find(&path::clean(target))?];
        (!is_directory(self.below, slot)).then_some(slot.data)
    }

    /// The nodes in the order of paths, and the entries of directories that no layer lists.
    fn lay_out(&self) -> (Vec<Slot>, Vec<Entry>) {
        let mut slots: Vec<Slot> = Vec::with_capacity(self.below.slots().len() + self.nodes.len());
        let mut implied = self.below.implied().to_vec();
        let mut visit = vec![Visit::Enter(0)];
        while let Some(next) = visit.pop() {
            match next {
                Visit::Leave(slot) => slots[slot].end = number(slots.len()),
                Visit::Copy(run) => {
                    // Where the run lies now, and where it lay: indexes wrap, as the difference may be negative.
                    let shift = number(slots.len()).wrapping_sub(number(run.start));
                    let moved = self.below.slots()[run].iter().map(|slot| Slot {
                        end: slot.end.wrapping_add(shift),
                        ..*slot
                    });
                    slots.extend(moved);
                }
                Visit::Enter(index) => {
                    let node = &self.nodes[index];
                    visit.push(Visit::Leave(slots.len()));
                    let from = visit.len();
                    self.visit_children(node, &mut visit);
                    visit[from..].reverse();
                    let (path, data) = node.at.unwrap_or_else(|| {
                        implied.push(implied_directory(node.path.to_vec()));
                        let at = At {
                            layer: IMPLIED,
                            entry: number(implied.len() - 1),
                        };
                        (at, at)
                    });
                    slots.push(Slot { path, data, end: 0 });
                }
            }
        }
        (slots, implied)
    }

    /// The children of a node in their order: those that changed, and the runs of those that did not between them.
    fn visit_children(&self, node: &Node<'a>, visit: &mut Vec<Visit>) {
        let slots = self.below.slots();
        let (mut at, end) = match node.base {
            Some(base) => (base + 1, slots[base].end as usize),
            None => (0, 0),
        };
        for (name, child) in &node.changed {
            let path = path::join(node.path, name);
            let path_of = |slot: &Slot| &self.below.entry(slot.path).path;
            let found =
                at + slots[at..end].partition_point(|slot| path_cmp(path_of(slot), &path).is_lt());
            visit.push(Visit::Copy(at..found));
            at = found;
            if found < end && *path_of(&slots[found]) == path {
                at = slots[found].end as usize;
            }
            visit.extend(child.map(Visit::Enter));
        }
        visit.push(Visit::Copy(at..end));
    }
}

enum Visit {
    Enter(usize),
    Copy(Range<usize>),
    Leave(usize),
}

/// `a`, `a/b` and `a/b/c` of the clean path `a/b/c`; nothing of the root's.
fn prefixes(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ends = path.iter().enumerate();
    let ends = ends.filter_map(|(at, byte)| (*byte == b'/').then_some(at));
    let whole = (!path.is_empty()).then_some(path.len());
    ends.chain(whole).map(|end| &path[..end])
}

/// Indexes are kept in 32 bits: a TOC's codec allows fewer entries than that, by orders of magnitude.
fn number(index: usize) -> u32 {
    u32::try_from(index).expect("TOCs hold far fewer than 2^32 entries")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Node as Seen;
    use crate::testing::{any_items, flats, layer};

    fn seen(tree: &Tree) -> Vec<String> {
        let show = |node: Seen<'_>| {
            let children = tree.children(node.path).count();
            format!(
                "{node} {:?} {:?} {:?} implied {} children {children}",
                node.entry.kind,
                (node.entry.mode, node.entry.uid, node.entry.gid),
                // Whatever number others have, they have one name.
                node.is_file().then_some(node.inode),
                node.implied
            )
        };
        tree.walk(b"").map(show).collect()
    }

    fn check(layers: &[Toc]) {
        let layers: Vec<Arc<Toc>> = layers.iter().cloned().map(Arc::new).collect();
        let mut tree = Tree::empty();
        for length in 1..=layers.len() {
            tree = tree.with(layers[length - 1].clone());
            let anew = Tree::merge(&layers[..length]);
            assert_eq!(seen(&tree), seen(&anew));
            assert_eq!(tree.unresolved(), anew.unresolved());
            assert_eq!(tree.to_toc(), anew.to_toc());
        }
    }

    proptest! {
        #[test]
        fn a_tree_that_grows_is_the_tree_of_all_its_layers(
            layers in prop::collection::vec(any_items(), 1..6),
        ) {
            let (_dir, flats) = flats();
            let tocs: Vec<Toc> = layers.iter().map(|items| layer(items, &flats)).collect();
            check(&tocs);
        }
    }
}
