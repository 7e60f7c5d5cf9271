//! A layer in the making: a base tree and what file steps have changed of it so far.
//!
//! The base is never copied: a lookup goes to the changes first, then to the base unless a change hides it. What the steps
//! do is in [`fileop`](crate::fileop); here is only the state they work on.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Bound;

use crate::path::{self, path_cmp};
use crate::resolve::{self, Follow, ResolveError, Step};
use crate::tree::{Node, Tree, ancestors};
use crate::writer::{FlatTable, TocWriter};
use crate::{Entry, Kind, NameFiles, Time, Toc};

/// A layer in the making over a base.
#[derive(Debug, Clone)]
pub struct Draft<'b> {
    base: &'b Tree,
    pub(crate) now: Time,
    changes: BTreeMap<PathKey, Change>,
    pub(crate) flats: FlatTable,
    pub(crate) names: NameFiles,
    inodes: u64,
}

/// What became of a path.
#[derive(Debug, Clone)]
enum Change {
    /// The base's entry is gone, with what it contained.
    Removed,
    /// It is this. If `fresh`, it does not continue a directory of the base: what the base has beneath it is hidden.
    Set {
        entry: Entry,
        inode: u64,
        fresh: bool,
    },
}

/// A path in the order of TOCs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PathKey(Vec<u8>);

impl Ord for PathKey {
    fn cmp(&self, other: &Self) -> Ordering {
        path_cmp(&self.0, &other.0)
    }
}

impl PartialOrd for PathKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<'b> Draft<'b> {
    /// A layer over `base` that changes nothing yet. `now` is the modification time of what has no other.
    pub fn new(base: &'b Tree, now: Time) -> Self {
        Self {
            base,
            now,
            changes: BTreeMap::new(),
            flats: FlatTable::default(),
            names: NameFiles::default(),
            inodes: 0,
        }
    }

    /// What is at a clean path now. The entry's own `path` has no meaning.
    pub(crate) fn get(&self, path: &[u8]) -> Option<&Entry> {
        match self.changes.get(&PathKey(path.to_vec())) {
            Some(Change::Removed) => None,
            Some(Change::Set { entry, .. }) => Some(entry),
            None => self.visible_base(path).map(|node| node.entry),
        }
    }

    pub(crate) fn is_directory(&self, path: &[u8]) -> bool {
        self.get(path)
            .is_some_and(|entry| matches!(entry.kind, Kind::Directory { .. }))
    }

    /// The clean path that `path` leads to, links followed inside the root.
    pub(crate) fn resolve(&self, path: &[u8], follow: Follow) -> Result<Vec<u8>, ResolveError> {
        resolve::resolve(path, follow, |path| {
            Step::of(self.get(path).map(|entry| &entry.kind))
        })
    }

    /// A number for a new inode.
    pub(crate) fn new_inode(&mut self) -> u64 {
        self.inodes += 1;
        self.inodes
    }

    /// Puts an entry at its path, whose parent is a directory. A directory over a directory keeps the contents; else what was
    /// there goes.
    pub(crate) fn set(&mut self, entry: Entry, inode: u64) {
        let continues =
            matches!(entry.kind, Kind::Directory { .. }) && self.is_directory(&entry.path);
        let key = PathKey(entry.path.clone());
        let fresh = match self.changes.get(&key) {
            Some(Change::Set { fresh, .. }) if continues => *fresh,
            _ => !continues,
        };
        if !continues {
            self.drop_beneath(&entry.path);
        }
        self.changes.insert(
            key,
            Change::Set {
                entry,
                inode,
                fresh,
            },
        );
    }

    /// Takes a path away with all beneath it. The root stays.
    pub(crate) fn remove(&mut self, path: &[u8]) {
        self.drop_beneath(path);
        let key = PathKey(path.to_vec());
        if self.visible_base(path).is_some() && !path.is_empty() {
            self.changes.insert(key, Change::Removed);
        } else {
            self.changes.remove(&key);
        }
    }

    /// The layer: all changes, and the directories that they lie in with the metadata that the base has for them, because
    /// programs that unpack a layer by itself would give them default ones.
    pub fn finish(self) -> Toc {
        let mut flats = self.flats.clone();
        let mut writer = TocWriter::default();
        for (PathKey(path), change) in &self.changes {
            match change {
                Change::Removed => writer.push(whiteout(path.clone()), 0),
                Change::Set {
                    entry,
                    inode,
                    fresh,
                } => {
                    let mut entry = entry.clone();
                    if let Kind::Directory { opaque } = &mut entry.kind {
                        let base = self.visible_base(path);
                        *opaque = *fresh && base.is_some_and(|node| node.is_directory());
                    }
                    writer.push(entry, *inode);
                }
            }
        }
        for node in self.unchanged_parents() {
            writer.push(flats.adopt(&node), 0);
        }
        let names = NameFiles {
            passwd: self
                .names
                .passwd
                .clone()
                .filter(|_| self.sets_file(b"etc/passwd")),
            group: self
                .names
                .group
                .clone()
                .filter(|_| self.sets_file(b"etc/group")),
        };
        writer.finish(&flats, names)
    }

    /// The directories of the base that changes lie in but that are not changed themselves.
    fn unchanged_parents(&self) -> Vec<Node<'b>> {
        let mut parents = BTreeMap::new();
        let mut last: &[u8] = b"";
        for PathKey(path) in self.changes.keys() {
            let parent = path::parent(path).unwrap_or_default();
            if parent == last {
                continue;
            }
            last = parent;
            for dir in ancestors(path) {
                let key = PathKey(dir.to_vec());
                if !self.changes.contains_key(&key)
                    && let Some(node) = self.visible_base(dir)
                {
                    parents.entry(key).or_insert(node);
                }
            }
        }
        parents.into_values().collect()
    }

    /// The tree that one would see now, as the source of a later step.
    pub fn snapshot(&self) -> Tree {
        let draft = Self {
            base: self.base,
            now: self.now,
            changes: self.changes.clone(),
            flats: self.flats.clone(),
            names: self.names.clone(),
            inodes: self.inodes,
        };
        self.base.with(draft.finish().into())
    }

    fn sets_file(&self, path: &[u8]) -> bool {
        matches!(
            self.changes.get(&PathKey(path.to_vec())),
            Some(Change::Set {
                entry: Entry {
                    kind: Kind::File { .. },
                    ..
                },
                ..
            })
        )
    }

    /// What the base has at a path, unless a change of a directory above hides it.
    fn visible_base(&self, path: &[u8]) -> Option<Node<'b>> {
        let hides = |dir: &[u8]| match self.changes.get(&PathKey(dir.to_vec())) {
            Some(Change::Removed) => true,
            Some(Change::Set { fresh, .. }) => *fresh,
            None => false,
        };
        let hidden = !self.changes.is_empty() && ancestors(path).any(hides);
        if hidden { None } else { self.base.get(path) }
    }

    fn drop_beneath(&mut self, path: &[u8]) {
        let from = PathKey(path.to_vec());
        // No name holds a NUL, so this is what follows the subtree.
        let to = PathKey([path, b"\0"].concat());
        let beneath = if path.is_empty() {
            (Bound::Excluded(from), Bound::Unbounded)
        } else {
            (Bound::Excluded(from), Bound::Excluded(to))
        };
        let keys: Vec<PathKey> = self
            .changes
            .range(beneath)
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            self.changes.remove(&key);
        }
    }
}

fn whiteout(path: Vec<u8>) -> Entry {
    let (mtime, xattrs) = Default::default();
    Entry {
        path,
        kind: Kind::Whiteout,
        mode: 0,
        uid: 0,
        gid: 0,
        mtime,
        xattrs,
    }
}

/// Where the bytes of a path are kept, if names are looked up in it. The path is clean.
pub(crate) fn name_file<'n>(
    names: &'n mut NameFiles,
    path: &[u8],
) -> Option<&'n mut Option<Vec<u8>>> {
    match path {
        b"etc/passwd" => Some(&mut names.passwd),
        b"etc/group" => Some(&mut names.group),
        _ => None,
    }
}
