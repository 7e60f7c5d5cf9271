//! Looking paths up in the layers below, as overlayfs would: from the top layer down.

use std::sync::Arc;

use crate::path::{is_within, path_cmp};
use crate::tree::{ancestors, implied_directory};
use crate::{Entry, Kind, Toc};

/// Where the entry that the merged view of `layers` has at `path` is: index of the layer, index of the entry. `None` where there
/// is nothing, and for directories that no layer lists.
pub(super) fn find(layers: &[Arc<Toc>], path: &[u8]) -> Option<(usize, usize)> {
    for (layer, toc) in layers.iter().enumerate().rev() {
        match look(toc, path) {
            Look::Here(entry) => return Some((layer, entry)),
            Look::Hidden => return None,
            Look::Further => {}
        }
    }
    None
}

/// Whether the merged view of `layers` has a directory at `path`, listed or not.
pub(super) fn has_directory(layers: &[Arc<Toc>], path: &[u8]) -> bool {
    for toc in layers.iter().rev() {
        let looked = look(toc, path);
        if let Look::Here(entry) = looked {
            return matches!(toc.entries[entry].kind, Kind::Directory { .. });
        }
        if makes(toc, path) {
            return true;
        }
        if let Look::Hidden = looked {
            return false;
        }
    }
    false
}

/// Whether a layer puts something beneath `path`.
fn makes(toc: &Toc, path: &[u8]) -> bool {
    let start = toc
        .entries
        .partition_point(|entry| path_cmp(&entry.path, path).is_le());
    toc.entries[start..]
        .iter()
        .take_while(|entry| is_within(&entry.path, path))
        .any(|entry| !matches!(entry.kind, Kind::Whiteout))
}

/// What the directory at `path` looks like in the merged view of `layers`; the attributes of an unlisted one where it is none.
pub fn attributes_below(layers: &[Arc<Toc>], path: &[u8]) -> Entry {
    find(layers, path)
        .map(|(layer, entry)| &layers[layer].entries[entry])
        .filter(|entry| matches!(entry.kind, Kind::Directory { .. }))
        .cloned()
        .unwrap_or_else(|| implied_directory(path.to_vec()))
}

enum Look {
    Here(usize),
    Hidden,
    Further,
}

fn look(toc: &Toc, path: &[u8]) -> Look {
    let mut opaque = is_opaque(toc, b"") && !path.is_empty();
    for directory in ancestors(path) {
        match entry(toc, directory).map(|index| &toc.entries[index].kind) {
            Some(Kind::Directory { opaque: true }) => opaque = true,
            None | Some(Kind::Directory { .. }) => {}
            Some(_) => return Look::Hidden,
        }
    }
    match entry(toc, path) {
        Some(index) if matches!(toc.entries[index].kind, Kind::Whiteout) => Look::Hidden,
        Some(index) => Look::Here(index),
        None if opaque => Look::Hidden,
        None => Look::Further,
    }
}

fn is_opaque(toc: &Toc, path: &[u8]) -> bool {
    let found = entry(toc, path).map(|index| &toc.entries[index].kind);
    matches!(found, Some(Kind::Directory { opaque: true }))
}

fn entry(toc: &Toc, path: &[u8]) -> Option<usize> {
    toc.entries
        .binary_search_by(|entry| path_cmp(&entry.path, path))
        .ok()
}
