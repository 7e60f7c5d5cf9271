//! Which parts of flat files a layer names: what has to be here before it can be used, and what is published with it.

use std::ops::Range;

use buildyard_model::FlatId;

use crate::{Kind, Toc};

/// Ranges by flat file.
pub type NamedRanges = Vec<(FlatId, Vec<Range<u64>>)>;

/// Which ranges of which flat files a TOC names, in the order of its table of flat files; adjacent ones joined.
pub fn ranges_of(toc: &Toc) -> NamedRanges {
    let mut ranges: Vec<Vec<Range<u64>>> = vec![Vec::new(); toc.flats.len()];
    for entry in &toc.entries {
        if let Kind::File { extents, .. } = &entry.kind {
            for extent in extents {
                ranges[extent.flat as usize].push(extent.offset..extent.offset + extent.length);
            }
        }
    }
    let joined = ranges.into_iter().map(|mut list| {
        list.sort_by_key(|range| range.start);
        let mut joined: Vec<Range<u64>> = Vec::with_capacity(list.len());
        for range in list {
            match joined.last_mut() {
                // What lies between two files is padding: one range is cheaper than two.
                Some(last) if range.start <= last.end.next_multiple_of(512) => {
                    last.end = last.end.max(range.end)
                }
                _ => joined.push(range),
            }
        }
        joined
    });
    toc.flats.iter().copied().zip(joined).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use buildyard_model::Digest;

    use crate::{Entry, Extent, Time};

    fn file(path: &str, offset: u64, length: u64) -> Entry {
        Entry {
            path: path.into(),
            kind: Kind::File {
                size: length,
                content: Digest::of(path),
                extents: vec![Extent {
                    flat: 0,
                    offset,
                    length,
                    at: 0,
                }],
                ino: 0,
            },
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            xattrs: Default::default(),
        }
    }

    #[test]
    fn files_that_lie_side_by_side_are_one_range() {
        let flat = FlatId::from_bytes([1; 32]);
        let toc = Toc {
            entries: vec![file("a", 0, 100), file("b", 512, 512), file("c", 4096, 10)],
            flats: vec![flat],
            ..Toc::default()
        };
        assert_eq!(ranges_of(&toc), vec![(flat, vec![0..1024, 4096..4106])]);
    }
}
