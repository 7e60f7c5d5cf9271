//! The table of contents of a layer.

use std::collections::BTreeMap;

use buildyard_model::{Digest, FlatId};
use serde::{Deserialize, Serialize};

/// A layer's table of contents.
///
/// Invariants, which [`Toc::check`](crate::Toc) callers may rely on after decoding:
/// - `entries` is sorted by `path` compared component by component (a directory comes before what it contains),
///   and each path occurs once;
/// - paths are relative, have no empty, `.` or `..` component, no trailing slash, no NUL; the layer's root directory
///   itself is the entry with the empty path and is present only where the change sets the root's own metadata;
/// - parents need not be listed: a missing parent is one that the layer does not change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Toc {
    /// Every path that the layer sets or removes.
    pub entries: Vec<Entry>,
    /// The flat files that extents refer to by index.
    pub flats: Vec<FlatId>,
    /// The bytes of `etc/passwd` and `etc/group`, where the layer has them.
    pub names: NameFiles,
}

/// The files that user and group names are looked up in. They are kept in the TOC so that a name can be resolved
/// without reading a flat file. Files over 1 MiB are not kept (`None`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameFiles {
    /// `etc/passwd`.
    pub passwd: Option<Vec<u8>>,
    /// `etc/group`.
    pub group: Option<Vec<u8>>,
}

/// One path of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The path relative to the root, bytes as the kernel has them (not necessarily UTF-8).
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits with set-user-id, set-group-id and sticky: `0o7777`. Zero for whiteouts.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time. Never part of a layer's id or of a key.
    pub mtime: Time,
    /// Extended attributes by full name (`security.capability`); never `trusted.overlay.*` or `user.overlay.*`.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// A time as Unix seconds and nanoseconds, as in `struct timespec`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Time {
    /// Seconds since the epoch; may be negative.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanos: u32,
}

/// The types of entries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A regular file.
    File {
        /// Length in bytes, holes included.
        size: u64,
        /// SHA-256 over the whole content, holes read as zeros.
        content: Digest,
        /// Where the bytes are, sorted by `at`, not overlapping; what no extent covers is a hole.
        extents: Vec<Extent>,
        /// Hard links: entries of one layer with the same non-zero number are one inode. They carry equal metadata.
        /// Zero for a file with one name. Numbers count from 1 in the order of the first path, so they are canonical.
        ino: u32,
    },
    /// A directory.
    Directory {
        /// The directory hides everything that lower layers have under this path (`.wh..wh..opq`).
        opaque: bool,
    },
    /// A symbolic link.
    Symlink {
        /// Its target, as it is.
        target: Vec<u8>,
    },
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// The path of lower layers is removed (`.wh.NAME`).
    Whiteout,
    /// A hard link to a path that is not in this layer but in a lower one. It is resolved when the chain is merged.
    LinkBelow {
        /// The path linked to.
        target: Vec<u8>,
    },
}

/// A part of a file's bytes in a flat file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// Index into [`Toc::flats`].
    pub flat: u32,
    /// Where in the flat file the bytes begin. The first extent of a file begins on a 512-byte boundary.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
    /// Where in the file the bytes belong.
    pub at: u64,
}
