//! A layer's id: the hash of its TOC without times, flat files and extents.
//!
//! Two layers with one id put the same file system on top of any lower one, modification times apart. The form is
//! frozen: ids are in cache keys and records. A change to it needs a new domain string.

use buildyard_model::{DigestHasher, LayerId};

use crate::{Entry, Kind, Toc};

const DOMAIN: &str = "buildyard layer v1";

impl Toc {
    /// The id of a layer that we made. (A pulled layer's id is its diff id instead.)
    ///
    /// Covers path, kind, mode, owner, size, content, link target, device numbers, extended attributes, hard-link
    /// groups, opaque directories and whiteouts of every entry.
    pub fn layer_id(&self) -> LayerId {
        let mut hasher = DigestHasher::new(DOMAIN);
        hasher.number(self.entries.len() as u64);
        for entry in &self.entries {
            add_entry(&mut hasher, entry);
        }
        LayerId(hasher.finish())
    }
}

fn add_entry(hasher: &mut DigestHasher, entry: &Entry) {
    hasher.field(&entry.path);
    add_kind(hasher, &entry.kind);
    hasher
        .number(entry.mode.into())
        .number(entry.uid.into())
        .number(entry.gid.into());
    hasher.number(entry.xattrs.len() as u64);
    for (name, value) in &entry.xattrs {
        hasher.field(name).field(value);
    }
}

/// Adds a tag and exactly the fields that belong to it.
fn add_kind(hasher: &mut DigestHasher, kind: &Kind) {
    match kind {
        Kind::File {
            size,
            content,
            ino,
            extents: _,
        } => hasher
            .field("file")
            .number(*size)
            .field(content.as_bytes())
            .number((*ino).into()),
        Kind::Directory { opaque } => hasher.field("directory").number((*opaque).into()),
        Kind::Symlink { target } => hasher.field("symlink").field(target),
        Kind::CharDevice { major, minor } => hasher
            .field("char")
            .number((*major).into())
            .number((*minor).into()),
        Kind::BlockDevice { major, minor } => hasher
            .field("block")
            .number((*major).into())
            .number((*minor).into()),
        Kind::Fifo => hasher.field("fifo"),
        Kind::Whiteout => hasher.field("whiteout"),
        Kind::LinkBelow { target } => hasher.field("link below").field(target),
    };
}

#[cfg(test)]
mod tests;
