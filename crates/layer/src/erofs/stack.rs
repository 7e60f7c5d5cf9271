//! What is in an image: the changes of some neighbouring layers as one tree.
//!
//! Layers are applied one by one to a tree that borrows from the TOCs, as for a merged [`Tree`](crate::Tree), but what removes
//! or hides something of the layers below stays in it. Then what only the layers below know is looked up there.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use buildyard_model::FlatId;

use super::{ErofsError, below};
use crate::path::{self, show};
use crate::tree::implied_directory;
use crate::{Entry, Kind, Toc};

/// An entry: index among all layers (those below first), index in its TOC.
type At = (usize, usize);

/// What an image shows.
pub(super) struct Stack<'a> {
    pub(super) items: Vec<Item<'a>>,
    independent: bool,
}

/// An inode of the image.
pub(super) struct Item<'a> {
    /// Its metadata. The kind is what is shown, unless it is a whiteout.
    pub(super) entry: &'a Entry,
    /// The flat files that the entry's extents index.
    pub(super) flats: &'a [FlatId],
    /// A path of it.
    pub(super) path: Vec<u8>,
    pub(super) whiteout: bool,
    /// Hides the directory of the layers below.
    pub(super) opaque: bool,
    /// How many names it has; for a directory, how many directories know it.
    pub(super) links: u32,
    /// The item of the directory it is in; its own for the root.
    pub(super) parent: u32,
    /// Names in it and their items, sorted by name; empty for what is no directory.
    pub(super) children: Vec<(&'a [u8], u32)>,
}

impl Item<'_> {
    pub(super) fn is_directory(&self) -> bool {
        !self.whiteout && matches!(self.entry.kind, Kind::Directory { .. })
    }
}

impl<'a> Stack<'a> {
    /// Applies `layers` to each other and looks up in `below` what they leave open.
    pub(super) fn of(layers: &'a [Arc<Toc>], below: &'a [Arc<Toc>]) -> Result<Self, ErofsError> {
        let mut builder = Builder {
            below,
            layers,
            nodes: vec![Node::passed_through(false)],
            links_below: false,
        };
        for index in 0..layers.len() {
            builder.apply(index)?;
        }
        Ok(Shown::of(builder))
    }

    pub(super) fn root(&self) -> &Item<'a> {
        &self.items[0]
    }

    /// Whether nothing was taken from below but the root's attributes, and nothing left out because there is no layer below.
    pub(super) fn independent(&self) -> bool {
        self.independent
    }
}

/// What is at a path while layers are applied.
#[derive(Clone, Copy)]
enum What {
    /// A directory that no layer so far lists.
    PassedThrough,
    Entry(At),
    Whiteout,
}

struct Node<'a> {
    what: What,
    directory: bool,
    opaque: bool,
    /// A layer puts something into this directory, so it is there whatever the layers below have.
    made: bool,
    children: BTreeMap<&'a [u8], usize>,
}

impl Node<'_> {
    fn passed_through(opaque: bool) -> Self {
        Self {
            what: What::PassedThrough,
            directory: true,
            opaque,
            made: false,
            children: BTreeMap::new(),
        }
    }

    /// What is no directory.
    fn leaf(what: What) -> Self {
        Self {
            what,
            directory: false,
            ..Self::passed_through(false)
        }
    }
}

struct Builder<'a> {
    below: &'a [Arc<Toc>],
    layers: &'a [Arc<Toc>],
    /// Index 0 is the root. Removed nodes stay in the vector, unreachable.
    nodes: Vec<Node<'a>>,
    links_below: bool,
}

/// Where a path leads in the tree so far.
enum Found {
    Node(usize),
    /// There is nothing, and nothing shows through.
    Hidden,
    /// The layers below may have it.
    Below,
}

impl<'a> Builder<'a> {
    fn toc(&self, layer: usize) -> &'a Toc {
        match layer.checked_sub(self.below.len()) {
            Some(index) => &self.layers[index],
            None => &self.below[layer],
        }
    }

    fn apply(&mut self, index: usize) -> Result<(), ErofsError> {
        let layer = self.below.len() + index;
        let toc = self.toc(layer);
        // What links to lower layers lead to is looked up before this layer changes anything.
        let targets = self.link_targets(toc)?;
        let mut dir: (&'a [u8], usize) = (b"", 0);
        for (index, entry) in toc.entries.iter().enumerate() {
            let Some(parent) = path::parent(&entry.path) else {
                self.set(0, &entry.kind, (layer, index));
                continue;
            };
            if matches!(entry.kind, Kind::Whiteout) {
                self.remove(parent, entry);
                continue;
            }
            if dir.0 != parent {
                dir = (parent, self.make_directories(parent, true));
            }
            let at = targets.get(&index).copied().unwrap_or((layer, index));
            let node = self.child(dir.1, path::file_name(&entry.path));
            self.set(node, &entry.kind, at);
        }
        Ok(())
    }

    fn set(&mut self, index: usize, kind: &Kind, at: At) {
        let node = &mut self.nodes[index];
        match kind {
            Kind::Directory { opaque } => {
                let hides = !node.directory || *opaque;
                // A node that was only just made stands for what is below and hides nothing.
                let fresh = matches!(node.what, What::PassedThrough) && !node.directory;
                if hides {
                    node.children.clear();
                }
                node.opaque = *opaque || node.opaque || (hides && !fresh);
                (node.what, node.directory) = (What::Entry(at), true);
            }
            _ => *node = Node::leaf(What::Entry(at)),
        }
    }

    /// Notes that a layer removes what `entry` names, where there may be something.
    fn remove(&mut self, parent: &'a [u8], entry: &'a Entry) {
        match self.find(parent) {
            Found::Hidden => return,
            Found::Node(node) if !self.nodes[node].directory => return,
            Found::Node(_) | Found::Below => {}
        }
        let parent = self.make_directories(parent, false);
        let node = self.child(parent, path::file_name(&entry.path));
        self.nodes[node] = Node::leaf(What::Whiteout);
    }

    /// The node of that name in `parent`. One that is made here is no directory yet, and passed through.
    fn child(&mut self, parent: usize, name: &'a [u8]) -> usize {
        let fresh = self.nodes.len();
        let index = *self.nodes[parent].children.entry(name).or_insert(fresh);
        if index == fresh {
            self.nodes.push(Node::leaf(What::PassedThrough));
        }
        index
    }

    /// The node of a directory, made with its parents where they are missing or something else.
    fn make_directories(&mut self, dir: &'a [u8], made: bool) -> usize {
        let mut index = 0;
        for name in path::components(dir) {
            index = self.child(index, name);
            let node = &mut self.nodes[index];
            if !node.directory {
                let replaces = !matches!(node.what, What::PassedThrough);
                *node = Node::passed_through(replaces);
            }
            node.made |= made;
        }
        index
    }

    fn find(&self, path: &[u8]) -> Found {
        let mut index = 0;
        let mut opaque = self.nodes[0].opaque;
        for name in path::components(path) {
            let node = &self.nodes[index];
            if !node.directory {
                return Found::Hidden;
            }
            match node.children.get(name) {
                Some(child) => index = *child,
                None if opaque => return Found::Hidden,
                None => return Found::Below,
            }
            opaque |= self.nodes[index].opaque;
        }
        Found::Node(index)
    }

    /// The entries that the links of `toc` to lower layers share an inode with, by the index of the link. A target that only the layers
    /// below have becomes part of this image, so that both names are one inode in it.
    fn link_targets(&mut self, toc: &'a Toc) -> Result<HashMap<usize, At>, ErofsError> {
        let mut targets = HashMap::new();
        for (index, entry) in toc.entries.iter().enumerate() {
            let Kind::LinkBelow { target } = &entry.kind else {
                continue;
            };
            let at = self
                .link_target(target)
                .ok_or_else(|| ErofsError::LinkTarget {
                    path: show(&entry.path),
                    target: show(target),
                })?;
            targets.insert(index, at);
        }
        Ok(targets)
    }

    fn link_target(&mut self, target: &'a [u8]) -> Option<At> {
        let at = match self.find(target) {
            Found::Node(node) => match self.nodes[node].what {
                What::Entry(at) if !self.nodes[node].directory => return Some(at),
                _ => return None,
            },
            Found::Hidden => return None,
            Found::Below => self.resolved_below(target)?,
        };
        self.links_below = true;
        let parent = self.make_directories(path::parent(target)?, true);
        let node = self.child(parent, path::file_name(target));
        self.set(node, &Kind::Fifo, at);
        Some(at)
    }

    /// The entry that the layers below have at `target`, which is no directory; a link there leads further down.
    fn resolved_below(&self, target: &[u8]) -> Option<At> {
        let (mut below, mut target) = (self.below, target);
        loop {
            let (layer, entry) = below::find(below, target)?;
            match &below[layer].entries[entry].kind {
                Kind::Directory { .. } => return None,
                Kind::LinkBelow { target: further } => (below, target) = (&below[..layer], further),
                _ => return Some((layer, entry)),
            }
        }
    }
}

/// The tree while it is laid out as items.
struct Shown<'a> {
    builder: Builder<'a>,
    items: Vec<Item<'a>>,
    /// Files by what makes them one inode.
    inodes: HashMap<(usize, u64), u32>,
    independent: bool,
}

/// A node on its way to become an item.
struct Visit<'a> {
    node: usize,
    path: Vec<u8>,
    name: &'a [u8],
    parent: u32,
    /// Something above hides the layers below.
    hidden: bool,
}

impl<'a> Shown<'a> {
    fn of(builder: Builder<'a>) -> Stack<'a> {
        let independent = !builder.links_below;
        let mut shown = Self {
            builder,
            items: Vec::new(),
            inodes: HashMap::new(),
            independent,
        };
        let bottom = shown.builder.below.is_empty();
        let mut visits = vec![Visit {
            node: 0,
            path: Vec::new(),
            name: b"",
            parent: 0,
            hidden: bottom,
        }];
        while let Some(visit) = visits.pop() {
            shown.visit(visit, &mut visits);
        }
        Stack {
            items: shown.items,
            independent: shown.independent,
        }
    }

    fn visit(&mut self, visit: Visit<'a>, visits: &mut Vec<Visit<'a>>) {
        let node = &self.builder.nodes[visit.node];
        let bottom = self.builder.below.is_empty();
        let hides = node.opaque || matches!(node.what, What::Whiteout);
        let inherits = visit.node != 0 && matches!(node.what, What::PassedThrough);
        self.independent &= !(inherits || hides && bottom);
        if matches!(node.what, What::Whiteout) && visit.hidden {
            // Nothing shows through there, and overlayfs lists whiteouts of directories that it doesn't merge.
            return;
        }
        let only_removes = inherits && !node.made && !node.opaque;
        if only_removes && (visit.hidden || !below::has_directory(self.builder.below, &visit.path))
        {
            return;
        }
        let (entry, flats, inode) = self.metadata(node, &visit);
        let known = inode.and_then(|inode| self.inodes.get(&inode).copied());
        let item = match known {
            Some(item) => {
                self.items[item as usize].links += 1;
                item
            }
            None => number(self.items.len()),
        };
        if visit.node != 0 {
            let parent = &mut self.items[visit.parent as usize];
            parent.children.push((visit.name, item));
            parent.links += u32::from(node.directory);
        }
        if known.is_some() {
            return;
        }
        if let Some(inode) = inode {
            self.inodes.insert(inode, item);
        }
        for (name, child) in node.children.iter().rev() {
            visits.push(Visit {
                node: *child,
                path: path::join(&visit.path, name),
                name,
                parent: item,
                hidden: visit.hidden || node.opaque,
            });
        }
        self.items.push(Item {
            entry,
            flats,
            whiteout: matches!(node.what, What::Whiteout),
            opaque: node.opaque && !visit.hidden,
            links: if node.directory { 2 } else { 1 },
            parent: visit.parent,
            children: Vec::with_capacity(node.children.len()),
            path: visit.path,
        });
    }

    /// A node's entry, its flat files, and, for what may have several names, which inode it is.
    fn metadata(
        &self,
        node: &Node<'a>,
        visit: &Visit<'a>,
    ) -> (&'a Entry, &'a [FlatId], Option<(usize, u64)>) {
        let below = self.builder.below;
        match node.what {
            What::Whiteout => (unlisted(), &[], None),
            What::PassedThrough => {
                let hidden = visit.hidden || node.opaque;
                let found = (!hidden).then(|| below::find(below, &visit.path)).flatten();
                let entry = found.map(|(layer, entry)| &below[layer].entries[entry]);
                let entry = entry.filter(|entry| matches!(entry.kind, Kind::Directory { .. }));
                (entry.unwrap_or_else(unlisted), &[], None)
            }
            What::Entry((layer, index)) => {
                let toc = self.builder.toc(layer);
                let entry = &toc.entries[index];
                let inode = match entry.kind {
                    Kind::Directory { .. } => None,
                    Kind::File { ino, .. } if ino != 0 => Some((layer, u64::from(ino) << 32)),
                    _ => Some((layer, index as u64)),
                };
                (entry, &toc.flats, inode)
            }
        }
    }
}

/// The metadata of a directory that no layer lists.
fn unlisted<'a>() -> &'a Entry {
    static ENTRY: OnceLock<Entry> = OnceLock::new();
    ENTRY.get_or_init(|| implied_directory(Vec::new()))
}

fn number(index: usize) -> u32 {
    u32::try_from(index).expect("TOCs hold far fewer than 2^32 entries")
}
