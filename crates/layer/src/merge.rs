//! Merging a chain of TOCs into the nodes of a tree.
//!
//! Layers are applied one by one to a tree of directories that borrows its names from the TOCs; then it is laid out in the
//! order of paths. The cost is that of the entries, not of entries times layers.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::path;
use crate::tree::{At, IMPLIED, Slot, implied_directory};
use crate::{Entry, Kind, Toc};

/// What a merge yields.
pub(crate) struct Merged {
    pub(crate) slots: Vec<Slot>,
    pub(crate) implied: Vec<Entry>,
    pub(crate) unresolved: Vec<Vec<u8>>,
}

/// Merges the layers, lowest first.
pub(crate) fn merge(layers: &[Arc<Toc>]) -> Merged {
    let mut builder = Builder {
        layers,
        nodes: vec![Build::default()],
        unresolved: Vec::new(),
    };
    for index in 0..layers.len() {
        builder.apply(index);
    }
    let (slots, implied) = builder.lay_out();
    Merged {
        slots,
        implied,
        unresolved: builder.unresolved,
    }
}

/// A node while merging. `at` is `None` for a directory that no layer lists.
#[derive(Default)]
struct Build<'a> {
    at: Option<(At, At)>,
    directory: bool,
    children: BTreeMap<&'a [u8], usize>,
}

struct Builder<'a> {
    layers: &'a [Arc<Toc>],
    /// Index 0 is the root. Removed nodes stay in the vector, unreachable.
    nodes: Vec<Build<'a>>,
    unresolved: Vec<Vec<u8>>,
}

impl<'a> Builder<'a> {
    fn apply(&mut self, layer: usize) {
        let toc: &'a Toc = &self.layers[layer];
        // What links to lower layers lead to is looked up before this layer changes anything.
        let targets: HashMap<usize, At> = toc
            .entries
            .iter()
            .enumerate()
            .filter_map(|(index, entry)| match &entry.kind {
                Kind::LinkBelow { target } => Some((index, self.link_target(target)?)),
                _ => None,
            })
            .collect();
        let mut dir: (&'a [u8], usize) = (b"", 0);
        for (index, entry) in toc.entries.iter().enumerate() {
            let at = At {
                layer: number(layer),
                entry: number(index),
            };
            let Some(parent) = path::parent(&entry.path) else {
                self.set_root(entry, at);
                dir = (b"", 0);
                continue;
            };
            if matches!(entry.kind, Kind::Whiteout) {
                self.remove(parent, path::file_name(&entry.path));
                dir = (b"", 0);
                continue;
            }
            let data = match entry.kind {
                Kind::LinkBelow { .. } => targets.get(&index).copied(),
                _ => Some(at),
            };
            let Some(data) = data else {
                self.unresolved.push(entry.path.clone());
                continue;
            };
            if dir.0 != parent {
                dir = (parent, self.make_directories(parent));
            }
            self.set(dir.1, entry, (at, data));
        }
    }

    fn set_root(&mut self, entry: &Entry, at: At) {
        if let Kind::Directory { opaque } = entry.kind {
            self.nodes[0].at = Some((at, at));
            if opaque {
                self.nodes[0].children.clear();
            }
        }
    }

    fn set(&mut self, parent: usize, entry: &'a Entry, at: (At, At)) {
        let index = self.child(parent, path::file_name(&entry.path));
        let node = &mut self.nodes[index];
        node.at = Some(at);
        match entry.kind {
            Kind::Directory { opaque } => {
                node.directory = true;
                if opaque {
                    node.children.clear();
                }
            }
            _ => {
                node.directory = false;
                node.children.clear();
            }
        }
    }

    /// The node of that name in `parent`, made where it is missing.
    fn child(&mut self, parent: usize, name: &'a [u8]) -> usize {
        let fresh = self.nodes.len();
        let index = *self.nodes[parent].children.entry(name).or_insert(fresh);
        if index == fresh {
            self.nodes.push(Build::default());
        }
        index
    }

    /// The node of a directory, made with its parents where they are missing or something else.
    fn make_directories(&mut self, dir: &'a [u8]) -> usize {
        let mut index = 0;
        for name in path::components(dir) {
            index = self.child(index, name);
            let node = &mut self.nodes[index];
            if !node.directory {
                *node = Build {
                    directory: true,
                    ..Build::default()
                };
            }
        }
        index
    }

    fn find(&self, path: &[u8]) -> Option<usize> {
        path::components(path).try_fold(0, |index, name| {
            self.nodes[index].children.get(name).copied()
        })
    }

    fn remove(&mut self, parent: &[u8], name: &[u8]) {
        if let Some(parent) = self.find(parent) {
            self.nodes[parent].children.remove(name);
        }
    }

    /// The entry that a link to `target` shares its inode with.
    fn link_target(&self, target: &[u8]) -> Option<At> {
        let node = &self.nodes[self.find(&path::clean(target))?];
        if node.directory {
            None
        } else {
            node.at.map(|(_, data)| data)
        }
    }

    /// The nodes in the order of paths, and the entries of directories that no layer lists.
    fn lay_out(&self) -> (Vec<Slot>, Vec<Entry>) {
        let mut slots: Vec<Slot> = Vec::with_capacity(self.nodes.len());
        let mut implied = Vec::new();
        let mut visit = vec![Visit::Enter(0, Vec::new())];
        while let Some(next) = visit.pop() {
            match next {
                Visit::Leave(slot) => slots[slot].end = number(slots.len()),
                Visit::Enter(index, path) => {
                    let node = &self.nodes[index];
                    visit.push(Visit::Leave(slots.len()));
                    for (name, child) in node.children.iter().rev() {
                        visit.push(Visit::Enter(*child, path::join(&path, name)));
                    }
                    let (path, data) = node.at.unwrap_or_else(|| {
                        implied.push(implied_directory(path));
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
}

enum Visit {
    Enter(usize, Vec<u8>),
    Leave(usize),
}

/// Indexes are kept in 32 bits: a TOC's codec allows fewer entries than that, by orders of magnitude.
fn number(index: usize) -> u32 {
    u32::try_from(index).expect("TOCs hold far fewer than 2^32 entries")
}
