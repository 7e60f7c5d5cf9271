//! Putting a TOC together from entries of other TOCs: one table of flat files, canonical inode numbers.

use std::collections::HashMap;

use buildyard_model::FlatId;

use crate::path::path_cmp;
use crate::tree::Node;
use crate::{Entry, Kind, NameFiles, Toc};

/// Flat files by index, each once.
#[derive(Debug, Clone, Default)]
pub(crate) struct FlatTable {
    ids: Vec<FlatId>,
    index: HashMap<FlatId, u32>,
}

impl FlatTable {
    /// The index of a flat file.
    pub(crate) fn index(&mut self, id: FlatId) -> u32 {
        let fresh =
            u32::try_from(self.ids.len()).expect("fewer flat files than memory has for their ids");
        let index = *self.index.entry(id).or_insert(fresh);
        if index == fresh {
            self.ids.push(id);
        }
        index
    }

    /// The node's entry under the node's path, its extents pointing into this table.
    pub(crate) fn adopt(&mut self, node: &Node<'_>) -> Entry {
        let mut entry = node.entry.clone();
        entry.path = node.path.to_vec();
        match &mut entry.kind {
            Kind::File { extents, .. } => {
                *extents = node
                    .extents()
                    .map(|(id, extent)| crate::Extent {
                        flat: self.index(id),
                        ..extent
                    })
                    .collect();
            }
            Kind::Directory { opaque } => *opaque = false,
            _ => {}
        }
        entry
    }
}

/// Collects entries and makes a sound TOC of them.
#[derive(Debug, Default)]
pub(crate) struct TocWriter {
    entries: Vec<(Entry, u64)>,
}

impl TocWriter {
    /// Adds an entry. Entries with the same `inode` become hard links of each other; it has a meaning for files only.
    pub(crate) fn push(&mut self, entry: Entry, inode: u64) {
        self.entries.push((entry, inode));
    }

    /// The TOC: sorted, only the flat files that are used in the order of their first use, inodes numbered from 1 in the
    /// order of their first path.
    pub(crate) fn finish(mut self, table: &FlatTable, names: NameFiles) -> Toc {
        if !self
            .entries
            .is_sorted_by(|a, b| path_cmp(&a.0.path, &b.0.path).is_lt())
        {
            self.entries.sort_by(|a, b| path_cmp(&a.0.path, &b.0.path));
        }
        let mut links: HashMap<u64, (usize, u32)> = HashMap::new();
        for (entry, inode) in &self.entries {
            if matches!(entry.kind, Kind::File { .. }) {
                links.entry(*inode).or_default().0 += 1;
            }
        }
        let mut used = FlatTable::default();
        let mut last = 0;
        for (entry, inode) in &mut self.entries {
            let Kind::File { ino, extents, .. } = &mut entry.kind else {
                continue;
            };
            for extent in extents {
                extent.flat = used.index(table.ids[extent.flat as usize]);
            }
            *ino = match links.get_mut(inode) {
                Some((count, number)) if *count > 1 => {
                    if *number == 0 {
                        last += 1;
                        *number = last;
                    }
                    *number
                }
                _ => 0,
            };
        }
        Toc {
            entries: self.entries.into_iter().map(|(entry, _)| entry).collect(),
            flats: used.ids,
            names,
        }
    }
}
