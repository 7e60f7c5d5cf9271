//! Small TOCs for tests: entries by builder functions, layers by lists of entries, trees as readable lines.

#![allow(dead_code, missing_docs, unreachable_pub)]

use std::sync::Arc;

use buildyard_layer::{Entry, Extent, Kind, Node, Time, Toc, Tree, path_cmp};
use buildyard_model::{Digest, FlatId};
use proptest::prelude::*;

pub fn entry(path: &str, kind: Kind) -> Entry {
    let mode = match kind {
        Kind::Directory { .. } => 0o755,
        Kind::Symlink { .. } => 0o777,
        Kind::Whiteout => 0,
        _ => 0o644,
    };
    Entry {
        path: path.as_bytes().to_vec(),
        kind,
        mode,
        uid: 0,
        gid: 0,
        mtime: Time {
            seconds: 1,
            nanos: 0,
        },
        xattrs: Default::default(),
    }
}

/// A file of that content; its one extent lies in flat file 0.
pub fn file(path: &str, content: &str) -> Entry {
    linked(path, content, 0)
}

pub fn linked(path: &str, content: &str, ino: u32) -> Entry {
    let size = content.len() as u64;
    let extents = match size {
        0 => vec![],
        length => vec![Extent {
            flat: 0,
            offset: 512,
            length,
            at: 0,
        }],
    };
    entry(
        path,
        Kind::File {
            size,
            content: Digest::of(content),
            extents,
            ino,
        },
    )
}

pub fn dir(path: &str) -> Entry {
    entry(path, Kind::Directory { opaque: false })
}

pub fn opaque(path: &str) -> Entry {
    entry(path, Kind::Directory { opaque: true })
}

pub fn symlink(path: &str, target: &str) -> Entry {
    entry(
        path,
        Kind::Symlink {
            target: target.as_bytes().to_vec(),
        },
    )
}

pub fn whiteout(path: &str) -> Entry {
    entry(path, Kind::Whiteout)
}

pub fn link_below(path: &str, target: &str) -> Entry {
    entry(
        path,
        Kind::LinkBelow {
            target: target.as_bytes().to_vec(),
        },
    )
}

pub fn mode(mode: u32, entry: Entry) -> Entry {
    Entry { mode, ..entry }
}

pub fn owned(uid: u32, gid: u32, entry: Entry) -> Entry {
    Entry { uid, gid, ..entry }
}

/// A layer whose flat file is told by `flat`.
pub fn layer(flat: u8, mut entries: Vec<Entry>) -> Arc<Toc> {
    entries.sort_by(|a, b| path_cmp(&a.path, &b.path));
    let flats = vec![FlatId::from_bytes([flat; 32])];
    Arc::new(Toc {
        entries,
        flats,
        ..Toc::default()
    })
}

pub fn tree(entries: Vec<Entry>) -> Tree {
    Tree::merge(&[layer(1, entries)])
}

/// `path kind mode uid:gid` of each node but the root, one a line.
pub fn show(tree: &Tree) -> Vec<String> {
    tree.walk(b"").skip(1).map(|node| line(&node)).collect()
}

pub fn line(node: &Node<'_>) -> String {
    let Entry {
        kind,
        mode,
        uid,
        gid,
        ..
    } = node.entry;
    let path = String::from_utf8_lossy(node.path);
    format!("{path} {} {mode:o} {uid}:{gid}", kind_text(kind))
}

pub fn kind_text(kind: &Kind) -> String {
    match kind {
        Kind::File { content, .. } => format!("file {}", &content.hex()[..6]),
        Kind::Directory { .. } => "dir".to_owned(),
        Kind::Symlink { target } => format!("-> {}", String::from_utf8_lossy(target)),
        Kind::Whiteout => "whiteout".to_owned(),
        other => format!("{other:?}"),
    }
}

/// Paths over a small alphabet, so that they meet.
pub fn any_path() -> impl Strategy<Value = String> {
    let name = prop_oneof![6 => Just("a"), 4 => Just("b"), 1 => Just("c"), 1 => Just("d-"), 1 => Just("e.x")];
    proptest::collection::vec(name, 1..4).prop_map(|parts| parts.join("/"))
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let kind = prop_oneof![
        4 => ("[xyz]{0,2}", 0u32..3).prop_map(|(content, ino)| linked("", &content, ino).kind),
        3 => Just(Kind::Directory { opaque: false }),
        1 => Just(Kind::Directory { opaque: true }),
        1 => any_path().prop_map(|to| Kind::Symlink { target: to.into_bytes() }),
        2 => Just(Kind::Whiteout),
        1 => any_path().prop_map(|to| Kind::LinkBelow { target: to.into_bytes() }),
        1 => Just(Kind::Fifo),
    ];
    (any_path(), kind, 0u32..4, 0u32..2).prop_map(|(path, kind, mode, uid)| Entry {
        mode: 0o700 + mode,
        uid,
        ..entry(&path, kind)
    })
}

/// A sound layer: each path once, equal metadata and content for equal inode numbers.
pub fn any_layer() -> impl Strategy<Value = Arc<Toc>> {
    proptest::collection::vec(any_entry(), 0..12).prop_map(|mut entries| {
        entries.sort_by(|a, b| path_cmp(&a.path, &b.path));
        entries.dedup_by(|a, b| a.path == b.path);
        let mut inodes: Vec<Entry> = Vec::new();
        for entry in &mut entries {
            let Kind::File { ino, .. } = entry.kind else { continue };
            let same = |other: &&Entry| matches!(other.kind, Kind::File { ino: other, .. } if other == ino);
            match inodes.iter().find(same) {
                Some(first) if ino != 0 => *entry = Entry { path: entry.path.clone(), ..first.clone() },
                _ => inodes.push(entry.clone()),
            }
        }
        layer(7, entries)
    })
}

/// Layers without anything that only has a meaning over others.
pub fn any_base() -> impl Strategy<Value = Tree> {
    proptest::collection::vec(any_layer(), 0..3).prop_map(|layers| Tree::merge(&layers))
}
