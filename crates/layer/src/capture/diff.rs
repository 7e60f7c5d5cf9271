//! Comparing with what is below: the node of the lower tree at the same path.

use crate::{Entry, Kind};

/// Whether a file with this metadata could be the one below, so that its content decides.
pub(super) fn may_be_equal(metadata: &Entry, file_size: u64, below: &Entry) -> bool {
    let same_size = matches!(&below.kind, Kind::File { size, .. } if *size == file_size);
    same_size && same_metadata(metadata, below) && metadata.mtime == below.mtime
}

/// Whether `entry` is what is below already.
pub(super) fn is_equal(entry: &Entry, below: &Entry) -> bool {
    let same_kind = match (&entry.kind, &below.kind) {
        (
            Kind::File { size, content, .. },
            Kind::File {
                size: size_below,
                content: content_below,
                ..
            },
        ) => (size, content) == (size_below, content_below),
        // An opaque one hides what is below: that is a change.
        (Kind::Directory { opaque }, Kind::Directory { .. }) => {
            return !opaque && same_metadata(entry, below);
        }
        (kind, kind_below) => kind == kind_below,
    };
    same_kind && same_metadata(entry, below) && entry.mtime == below.mtime
}

fn same_metadata(a: &Entry, b: &Entry) -> bool {
    // The mode of a symbolic link means nothing: archives have any, the kernel always says 0777.
    let same_mode = a.mode == b.mode || matches!(a.kind, Kind::Symlink { .. });
    same_mode && (a.uid, a.gid) == (b.uid, b.gid) && a.xattrs == b.xattrs
}
