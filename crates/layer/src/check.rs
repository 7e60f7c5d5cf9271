//! What must hold of every TOC. Decoding checks it, so that nobody has to doubt a TOC that came over a wire.

use std::collections::HashMap;

use crate::path::{is_canonical, is_within, path_cmp, show};
use crate::{Entry, Extent, Kind, Toc};

/// The invariant that a TOC breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// A path that a TOC cannot have.
    #[error(
        "path {0:?} of a table of contents is absolute, empty in parts, or has `.`, `..` or NUL in it"
    )]
    Path(String),
    /// Entries out of order, or one path twice.
    #[error("path {0:?} of a table of contents is out of order or occurs twice")]
    Order(String),
    /// An entry lies under something that is not a directory.
    #[error("path {0:?} of a table of contents lies under {1:?}, which is not a directory there")]
    Parent(String, String),
    /// Metadata that no file has.
    #[error("{what} of {path:?} in a table of contents is not possible")]
    Metadata {
        /// The entry.
        path: String,
        /// Which of its fields.
        what: &'static str,
    },
    /// Extents that overlap, leave the file, or name no flat file.
    #[error(
        "the extents of {0:?} in a table of contents overlap, leave the file or name no flat file"
    )]
    Extents(String),
    /// A link to a lower layer's path that this layer sets or removes itself.
    #[error("{0:?} in a table of contents links to a path below that the layer itself replaces")]
    LinkToReplaced(String),
    /// Hard links whose numbers are not canonical or that differ.
    #[error(
        "the hard link number of {0:?} in a table of contents is not canonical, or its links differ"
    )]
    Links(String),
}

impl Toc {
    /// Checks every invariant of [`Toc`]. Time and memory are linear in the number of entries.
    pub fn check(&self) -> Result<(), CheckError> {
        let mut last: Option<&Entry> = None;
        let mut blocker: Option<&Entry> = None;
        let mut links = Links::default();
        for entry in &self.entries {
            if !is_canonical(&entry.path) {
                return Err(CheckError::Path(show(&entry.path)));
            }
            if last.is_some_and(|l| path_cmp(&l.path, &entry.path).is_ge()) {
                return Err(CheckError::Order(show(&entry.path)));
            }
            if let Some(b) = blocker.filter(|b| is_within(&entry.path, &b.path)) {
                return Err(CheckError::Parent(show(&entry.path), show(&b.path)));
            }
            check_metadata(entry)?;
            check_extents(entry, self.flats.len())?;
            links.check(entry)?;
            if matches!(&entry.kind, Kind::LinkBelow { target } if self.has(target)) {
                return Err(CheckError::LinkToReplaced(show(&entry.path)));
            }
            last = Some(entry);
            if !matches!(entry.kind, Kind::Directory { .. }) {
                blocker = Some(entry);
            }
        }
        links.finish()
    }

    fn has(&self, path: &[u8]) -> bool {
        self.entries
            .binary_search_by(|e| path_cmp(&e.path, path))
            .is_ok()
    }
}

fn check_metadata(entry: &Entry) -> Result<(), CheckError> {
    let bare = matches!(entry.kind, Kind::Whiteout);
    let what = if entry.mode & !0o7777 != 0 || (bare && entry.mode != 0) {
        "the mode"
    } else if entry.mtime.nanos >= 1_000_000_000 {
        "the modification time"
    } else if entry.xattrs.keys().any(|name| !is_kept_xattr(name)) {
        "an extended attribute"
    } else if entry.path.is_empty() && !matches!(entry.kind, Kind::Directory { .. }) {
        "the kind"
    } else if matches!(&entry.kind, Kind::LinkBelow { target } if target.is_empty() || !is_canonical(target))
    {
        "the link target"
    } else if matches!(entry.kind, Kind::CharDevice { major: 0, minor: 0 }) {
        // overlayfs takes it for its own whiteout, whatever it was meant to be.
        "the device number"
    } else {
        return Ok(());
    };
    Err(CheckError::Metadata {
        path: show(&entry.path),
        what,
    })
}

/// Whether an extended attribute may be in a layer: overlayfs' own must neither enter nor leave.
pub(crate) fn is_kept_xattr(name: &[u8]) -> bool {
    !name.is_empty()
        && !name.contains(&0)
        && !name.starts_with(b"trusted.overlay.")
        && !name.starts_with(b"user.overlay.")
}

fn check_extents(entry: &Entry, flats: usize) -> Result<(), CheckError> {
    let Kind::File { size, extents, .. } = &entry.kind else {
        return Ok(());
    };
    let mut end = 0;
    for (i, extent) in extents.iter().enumerate() {
        let fits = extent_end(extent).filter(|e| {
            e <= size
                && extent.at >= end
                && extent.length > 0
                && (extent.flat as usize) < flats
                && (i > 0 || extent.offset.is_multiple_of(512))
        });
        end = fits.ok_or_else(|| CheckError::Extents(show(&entry.path)))?;
    }
    Ok(())
}

/// Where the extent ends in its file; `None` where file or flat file would be longer than a number can say.
fn extent_end(extent: &Extent) -> Option<u64> {
    extent.offset.checked_add(extent.length)?;
    extent.at.checked_add(extent.length)
}

/// The hard-link groups seen so far.
#[derive(Default)]
struct Links<'a> {
    groups: HashMap<u32, (&'a Entry, usize)>,
}

impl<'a> Links<'a> {
    fn check(&mut self, entry: &'a Entry) -> Result<(), CheckError> {
        let Kind::File { ino, .. } = entry.kind else {
            return Ok(());
        };
        if ino == 0 {
            return Ok(());
        }
        let next = self.groups.len() + 1;
        let group = self.groups.entry(ino);
        let fine = match group {
            std::collections::hash_map::Entry::Vacant(new) => {
                new.insert((entry, 1));
                ino as usize == next
            }
            std::collections::hash_map::Entry::Occupied(mut known) => {
                let (first, names) = known.get_mut();
                *names += 1;
                same_inode(first, entry)
            }
        };
        if fine {
            Ok(())
        } else {
            Err(CheckError::Links(show(&entry.path)))
        }
    }

    fn finish(self) -> Result<(), CheckError> {
        match self.groups.values().find(|(_, names)| *names < 2) {
            Some((alone, _)) => Err(CheckError::Links(show(&alone.path))),
            None => Ok(()),
        }
    }
}

fn same_inode(a: &Entry, b: &Entry) -> bool {
    (a.mode, a.uid, a.gid, a.mtime) == (b.mode, b.uid, b.gid, b.mtime)
        && a.xattrs == b.xattrs
        && a.kind == b.kind
}
