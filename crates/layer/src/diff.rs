//! The difference of two trees as a layer: BuildKit's DiffOp where the lower chain is not a prefix of the upper one.
//!
//! Where it is, the remaining layers are the difference already, and the caller takes those. A merge needs nothing
//! here: its chain is the concatenation of its inputs' chains.

use std::collections::HashMap;

use crate::path::path_cmp;
use crate::tree::{Node, Tree, ancestors};
use crate::writer::{FlatTable, TocWriter};
use crate::{Entry, Kind, Toc};

/// The layer that makes `lower` look like `upper`.
///
/// A path counts as changed if its kind, metadata, content or, for other than directories, modification time differ. Hard
/// links among changed files stay links. The directories that changes lie in are listed with the metadata of `upper`
/// (of `lower`, where only a removal is left), as in every layer that the farm makes.
pub fn diff(lower: &Tree, upper: &Tree) -> Toc {
    let mut out = Out {
        flats: FlatTable::default(),
        writer: TocWriter::default(),
        inodes: HashMap::new(),
    };
    let mut changed: Vec<&[u8]> = Vec::new();
    let mut removed: Vec<&[u8]> = Vec::new();
    for node in upper.walk(b"") {
        if lower
            .get(node.path)
            .is_none_or(|before| differs(&before, &node))
        {
            changed.push(node.path);
            out.push(&node);
        }
    }
    let mut walk = lower.walk(b"");
    while let Some(node) = walk.next() {
        if upper.get(node.path).is_none() {
            removed.push(node.path);
            out.writer.push(whiteout(&node), 0);
            walk.skip_beneath(&node);
        } else if !upper.get(node.path).is_some_and(|now| now.is_directory()) {
            // What replaces a directory hides its contents.
            walk.skip_beneath(&node);
        }
    }
    out.push_parents(upper, &changed, &removed);
    let names = upper.names();
    let changes_file = |path: &[u8]| changed.contains(&path);
    let names = crate::NameFiles {
        passwd: names.passwd.filter(|_| changes_file(b"etc/passwd")),
        group: names.group.filter(|_| changes_file(b"etc/group")),
    };
    out.writer.finish(&out.flats, names)
}

struct Out {
    flats: FlatTable,
    writer: TocWriter,
    inodes: HashMap<crate::Inode, u64>,
}

impl Out {
    fn push(&mut self, node: &Node<'_>) {
        let fresh = self.inodes.len() as u64;
        let inode = *self.inodes.entry(node.inode).or_insert(fresh);
        self.writer.push(self.flats.adopt(node), inode);
    }

    fn push_parents(&mut self, upper: &Tree, changed: &[&[u8]], removed: &[&[u8]]) {
        let mut dirs: Vec<&[u8]> = changed
            .iter()
            .chain(removed)
            .flat_map(|path| ancestors(path))
            .collect();
        dirs.sort_by(|a, b| path_cmp(a, b));
        dirs.dedup();
        for dir in dirs {
            let listed = changed.binary_search_by(|path| path_cmp(path, dir)).is_ok();
            if let Some(node) = upper.get(dir).filter(|_| !listed) {
                self.push(&node);
            }
        }
    }
}

fn whiteout(node: &Node<'_>) -> Entry {
    let (mtime, xattrs) = Default::default();
    Entry {
        path: node.path.to_vec(),
        kind: Kind::Whiteout,
        mode: 0,
        uid: 0,
        gid: 0,
        mtime,
        xattrs,
    }
}

fn differs(before: &Node<'_>, after: &Node<'_>) -> bool {
    let (a, b) = (before.entry, after.entry);
    let metadata = |entry: &Entry| (entry.mode, entry.uid, entry.gid);
    let kind = match (&a.kind, &b.kind) {
        (
            Kind::File { size, content, .. },
            Kind::File {
                size: other_size,
                content: other,
                ..
            },
        ) => (size, content) != (other_size, other),
        (Kind::Directory { .. }, Kind::Directory { .. }) => false,
        (a, b) => a != b,
    };
    let time = !after.is_directory() && a.mtime != b.mtime;
    kind || time || metadata(a) != metadata(b) || a.xattrs != b.xattrs
}
