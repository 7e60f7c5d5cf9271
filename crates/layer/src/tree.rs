//! The merged view of a chain of layers: what a process would see if they were mounted over each other.
//!
//! A tree is immutable and borrows nothing: it shares the layers' TOCs. Its nodes lie in the order of their paths, each
//! knowing where its subtree ends, so a lookup is a binary search, a walk a scan, and children are found by skipping
//! subtrees. No bytes of files are read here and nothing is mounted.

use std::collections::HashMap;
use std::sync::Arc;

use buildyard_model::FlatId;

use crate::extend;
use crate::merge;
use crate::path::{self, path_cmp};
use crate::resolve::{self, Follow, ResolveError, Step};
use crate::writer::{FlatTable, TocWriter};
use crate::{Entry, Extent, Kind, NameFiles, Toc};

/// The merged view of a chain of layers.
#[derive(Debug, Clone)]
pub struct Tree {
    layers: Vec<Arc<Toc>>,
    /// Directories that no layer lists but that something lies in, and the root where no layer sets it.
    implied: Vec<Entry>,
    slots: Vec<Slot>,
    unresolved: Vec<Vec<u8>>,
}

/// A node as it is stored: where its path and its data are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot {
    /// The entry that names the path.
    pub(crate) path: At,
    /// The entry that holds the metadata; another one only for a hard link to a lower layer.
    pub(crate) data: At,
    /// The index after the last node of the subtree.
    pub(crate) end: u32,
}

/// An entry of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct At {
    /// Index of the layer, or [`IMPLIED`].
    pub(crate) layer: u32,
    /// Index of the entry.
    pub(crate) entry: u32,
}

/// The "layer" of entries that no layer lists.
pub(crate) const IMPLIED: u32 = u32::MAX;

/// Which inode of a tree a file is. Equal for hard links of each other, meaningless between trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Inode(u32, u64);

/// One path of a tree.
#[derive(Debug, Clone, Copy)]
pub struct Node<'t> {
    /// The path. Use it, not `entry.path`: they differ for a hard link to a lower layer.
    pub path: &'t [u8],
    /// Kind and metadata. Never a whiteout or a link below; the `opaque` flag and `ino` have no meaning here.
    pub entry: &'t Entry,
    /// The flat files that the entry's extents refer to by index.
    pub flats: &'t [FlatId],
    /// The inode: equal for hard links.
    pub inode: Inode,
    /// No layer lists this directory; its metadata are the default ones (mode 0755, root).
    pub implied: bool,
    index: u32,
}

impl<'t> Node<'t> {
    /// Whether this is a directory.
    pub fn is_directory(&self) -> bool {
        matches!(self.entry.kind, Kind::Directory { .. })
    }

    /// Whether this is a regular file.
    pub fn is_file(&self) -> bool {
        matches!(self.entry.kind, Kind::File { .. })
    }

    /// The extents of a file with the flat files they lie in; none for other kinds. An extent whose index is out of the
    /// TOC's table is left out: a decoded TOC has none.
    pub fn extents(&self) -> impl Iterator<Item = (FlatId, Extent)> + use<'t> {
        let extents = match &self.entry.kind {
            Kind::File { extents, .. } => extents.as_slice(),
            _ => &[],
        };
        let flats = self.flats;
        extents
            .iter()
            .filter_map(move |extent| Some((*flats.get(extent.flat as usize)?, *extent)))
    }
}

impl Tree {
    /// The tree of no layers: an empty root.
    pub fn empty() -> Self {
        Self::merge(&[])
    }

    /// Merges a chain, lowest layer first.
    ///
    /// Whiteouts and opaque directories remove what is below; an entry replaces one of another kind with all it contains; a
    /// directory over a directory sets its metadata and keeps its contents. Parents that no layer lists are directories of
    /// mode 0755 owned by root. A hard link to a lower layer is the same inode as what its target was before the layer;
    /// where there is no target, the entry is left out and listed in [`Tree::unresolved`].
    pub fn merge(layers: &[Arc<Toc>]) -> Self {
        let merged = merge::merge(layers);
        Self {
            layers: layers.to_vec(),
            implied: merged.implied,
            slots: merged.slots,
            unresolved: merged.unresolved,
        }
    }

    /// This tree with one more layer on top: what merging all layers yields, at the price of the new one and of a copy.
    pub fn with(&self, layer: Arc<Toc>) -> Self {
        let extended = extend::extend(self, &layer);
        let mut layers = Vec::with_capacity(self.layers.len() + 1);
        layers.extend_from_slice(&self.layers);
        layers.push(layer);
        Self {
            layers,
            implied: extended.implied,
            slots: extended.slots,
            unresolved: extended.unresolved,
        }
    }

    /// The layers it was merged from, lowest first.
    pub fn layers(&self) -> &[Arc<Toc>] {
        &self.layers
    }

    /// Hard links to lower layers whose target does not exist. A sound chain has none.
    pub fn unresolved(&self) -> &[Vec<u8>] {
        &self.unresolved
    }

    /// How many paths there are, the root included.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is nothing but the root.
    pub fn is_empty(&self) -> bool {
        self.slots.len() == 1
    }

    /// The root directory.
    pub fn root(&self) -> Node<'_> {
        self.node(0)
    }

    /// The node at a clean path (the root is the empty path). Links are not followed.
    pub fn get(&self, path: &[u8]) -> Option<Node<'_>> {
        self.find(path).map(|index| self.node(index))
    }

    /// What a directory contains, in order; nothing for other kinds and for a path that is not there.
    pub fn children(&self, dir: &[u8]) -> impl Iterator<Item = Node<'_>> {
        let (mut next, end) = match self.find(dir) {
            Some(index) => (index + 1, self.slots[index].end as usize),
            None => (0, 0),
        };
        std::iter::from_fn(move || {
            (next < end).then(|| {
                let node = self.node(next);
                next = self.slots[next].end as usize;
                node
            })
        })
    }

    /// The node at `from` and all beneath it, each directory before its contents; nothing if it is not there.
    pub fn walk(&self, from: &[u8]) -> Walk<'_> {
        match self.find(from) {
            Some(index) => Walk {
                tree: self,
                next: index,
                end: self.slots[index].end as usize,
            },
            None => Walk {
                tree: self,
                next: 0,
                end: 0,
            },
        }
    }

    /// The regular files at and beneath `from`.
    pub fn files_beneath(&self, from: &[u8]) -> impl Iterator<Item = Node<'_>> {
        self.walk(from).filter(Node::is_file)
    }

    /// The clean path that `path` leads to when symbolic links are followed inside the root. It need not exist.
    ///
    /// # Errors
    ///
    /// Too many links, or a file where a directory is needed.
    pub fn resolve(&self, path: &[u8], follow: Follow) -> Result<Vec<u8>, ResolveError> {
        resolve::resolve(path, follow, |path| {
            Step::of(self.get(path).map(|node| &node.entry.kind))
        })
    }

    /// `etc/passwd` and `etc/group` as the topmost layers have them. `None` where the path is not a file (a symbolic link, say)
    /// or its layer kept no bytes.
    pub fn names(&self) -> NameFiles {
        let carried = |path: &[u8], pick: fn(&NameFiles) -> &Option<Vec<u8>>| {
            let slot = &self.slots[self.find(path)?];
            if slot.path != slot.data {
                return None;
            }
            pick(&self.layers.get(slot.data.layer as usize)?.names).clone()
        };
        NameFiles {
            passwd: carried(b"etc/passwd", |names| &names.passwd),
            group: carried(b"etc/group", |names| &names.group),
        }
    }

    /// The whole tree as one TOC over the empty root: no whiteouts, hard links within it, canonical inode numbers.
    pub fn to_toc(&self) -> Toc {
        let mut flats = FlatTable::default();
        let mut writer = TocWriter::default();
        let mut inodes = HashMap::new();
        for node in self.walk(b"") {
            if node.path.is_empty() && node.implied {
                continue;
            }
            let fresh = inodes.len() as u64;
            let inode = *inodes.entry(node.inode).or_insert(fresh);
            writer.push(flats.adopt(&node), inode);
        }
        writer.finish(&flats, self.names())
    }

    pub(crate) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    pub(crate) fn implied(&self) -> &[Entry] {
        &self.implied
    }

    pub(crate) fn find(&self, path: &[u8]) -> Option<usize> {
        self.slots
            .binary_search_by(|slot| path_cmp(&self.entry(slot.path).path, path))
            .ok()
    }

    pub(crate) fn entry(&self, at: At) -> &Entry {
        match self.layers.get(at.layer as usize) {
            Some(layer) => &layer.entries[at.entry as usize],
            None => &self.implied[at.entry as usize],
        }
    }

    fn node(&self, index: usize) -> Node<'_> {
        let slot = self.slots[index];
        let entry = self.entry(slot.data);
        let layer = self.layers.get(slot.data.layer as usize);
        let number = match entry.kind {
            Kind::File { ino, .. } if ino != 0 => u64::from(ino) << 32,
            _ => u64::from(slot.data.entry),
        };
        Node {
            path: &self.entry(slot.path).path,
            entry,
            flats: layer.map_or(&[], |layer| &layer.flats),
            inode: Inode(slot.data.layer, number),
            implied: slot.path.layer == IMPLIED,
            index: u32::try_from(index).unwrap_or(u32::MAX),
        }
    }
}

impl Step {
    pub(crate) fn of(kind: Option<&Kind>) -> Self {
        match kind {
            None => Self::Missing,
            Some(Kind::Directory { .. }) => Self::Directory,
            Some(Kind::Symlink { target }) => Self::Link(target.clone()),
            Some(_) => Self::Other,
        }
    }
}

/// A walk over a subtree in the order of paths.
#[derive(Debug, Clone)]
pub struct Walk<'t> {
    tree: &'t Tree,
    next: usize,
    end: usize,
}

impl Walk<'_> {
    /// Passes over what lies beneath `node`, the node that the walk yielded last.
    pub fn skip_beneath(&mut self, node: &Node<'_>) {
        if let Some(slot) = self.tree.slots.get(node.index as usize) {
            self.next = self.next.max(slot.end as usize);
        }
    }
}

impl<'t> Iterator for Walk<'t> {
    type Item = Node<'t>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.end {
            return None;
        }
        let node = self.tree.node(self.next);
        self.next += 1;
        Some(node)
    }
}

/// The directory that is there because something lies in it.
pub(crate) fn implied_directory(path: Vec<u8>) -> Entry {
    Entry {
        path,
        kind: Kind::Directory { opaque: false },
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: Default::default(),
        xattrs: Default::default(),
    }
}

/// Every directory that contains `path`, outermost first, without the root and without `path` itself.
pub(crate) fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'/')
        .map(|(at, _)| &path[..at])
}

/// The path as an error shows it.
impl std::fmt::Display for Node<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&path::display(self.path))
    }
}
