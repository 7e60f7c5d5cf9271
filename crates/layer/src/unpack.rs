//! A layer into a directory that overlayfs takes as a lower one.
//!
//! The directory must be empty and nobody else's. Whiteouts become character devices 0:0, opaque directories get
//! `trusted.overlay.opaque`; whiteouts inside those are left out. (overlayfs does not look at the attribute of a layer's root: below a layer whose root is
//! opaque nothing else must be mounted.) Every content digest is checked while copying. Nothing is flushed to disk,
//! and after an error the directory is left half done: the caller removes it.

mod data;
mod verify;
mod write;

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use buildyard_model::Digest;
use rustix::fs::{AtFlags, FileType, Mode, linkat, makedev, mkdirat, mknodat, symlinkat};

use crate::assemble::bare;
use crate::beneath::{open_directory, open_root};
use crate::path::{file_name, is_within, parent, show};
use crate::{Entry, ExtentSource, Kind, Toc};

pub use verify::verify;

/// Why a layer was not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The directory could not be written.
    #[error("cannot {action} {path:?} of a layer")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The entry.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file's bytes are not here or cannot be read; the source names the flat file.
    #[error("cannot read the bytes of {path:?} of a layer")]
    Read {
        /// The file.
        path: String,
        /// What failed.
        source: io::Error,
    },
    /// A file's bytes are not those that the TOC promises.
    #[error("the bytes of {path:?} have digest {found}, not {wanted}: flat file {flat} is damaged")]
    Damaged {
        /// The file.
        path: String,
        /// The flat file that its first bytes lie in.
        flat: String,
        /// What the TOC says.
        wanted: Digest,
        /// What was read.
        found: Digest,
    },
}

/// Unpacks `toc` into the empty directory `directory`. Must be root.
///
/// What only the layers below can tell is left to the caller: hard links to them (`LinkBelow`) are left out, and
/// directories that the layer doesn't list but has entries in are made as 0755 and root's. A merged tree as one TOC
/// ([`Tree::to_toc`](crate::Tree::to_toc)) has neither.
pub fn unpack(toc: &Toc, source: &dyn ExtentSource, directory: &Path) -> Result<(), UnpackError> {
    let root = open_root(directory).map_err(|e| failed("open", b"", e))?;
    let here = Here {
        path: Vec::new(),
        fd: open_directory(&root, b"").map_err(|e| failed("open", b"", e))?,
    };
    let mut unpacker = Unpacker {
        root,
        here,
        toc,
        source,
        directories: Vec::new(),
        first_names: HashMap::new(),
        opaque: None,
        buffer: vec![0; 256 << 10],
    };
    if toc.entries.first().is_none_or(|e| !e.path.is_empty()) {
        unpacker.directories.push(unlisted(b""));
    }
    for entry in &toc.entries {
        unpacker.entry(entry)?;
    }
    unpacker.finish_directories()
}

fn failed(action: &'static str, path: &[u8], error: impl Into<io::Error>) -> UnpackError {
    UnpackError::Io {
        action,
        path: show(path),
        source: error.into(),
    }
}

/// A directory that the layer doesn't list.
fn unlisted(path: &[u8]) -> Entry {
    bare(path.to_vec(), Kind::Directory { opaque: false }, 0o755)
}

/// An open directory.
struct Here {
    path: Vec<u8>,
    fd: OwnedFd,
}

struct Unpacker<'a> {
    root: OwnedFd,
    /// The directory that entries are being made in. Entries come sorted, so it seldom changes.
    here: Here,
    toc: &'a Toc,
    source: &'a dyn ExtentSource,
    /// Directories made so far, which get their metadata last: what is made in them changes their times.
    directories: Vec<Entry>,
    first_names: HashMap<u32, &'a [u8]>,
    /// The outermost opaque directory seen last.
    opaque: Option<&'a [u8]>,
    buffer: Vec<u8>,
}

impl<'a> Unpacker<'a> {
    fn entry(&mut self, entry: &'a Entry) -> Result<(), UnpackError> {
        if matches!(entry.kind, Kind::Whiteout) && self.is_in_opaque(&entry.path) {
            // Nothing shows through there, and overlayfs lists whiteouts of directories that it doesn't merge.
            return Ok(());
        }
        self.enter(parent(&entry.path).unwrap_or_default())?;
        match &entry.kind {
            Kind::Directory { opaque } => {
                self.make_directory(&entry.path)?;
                if *opaque && !self.is_in_opaque(&entry.path) {
                    self.opaque = Some(&entry.path);
                }
                self.directories.push(entry.clone());
                Ok(())
            }
            Kind::Whiteout => self.make_node(entry, FileType::CharacterDevice, (0, 0)),
            Kind::File { ino, .. } if *ino != 0 => match self.first_names.get(ino).copied() {
                Some(first) => self.make_link(entry, first),
                None => {
                    self.first_names.insert(*ino, &entry.path);
                    self.make(entry)
                }
            },
            Kind::LinkBelow { .. } => Ok(()),
            _ => self.make(entry),
        }
    }

    fn is_in_opaque(&self, path: &[u8]) -> bool {
        self.opaque
            .is_some_and(|directory| is_within(path, directory))
    }

    /// Makes anything but directories, whiteouts and links, with its metadata.
    fn make(&mut self, entry: &Entry) -> Result<(), UnpackError> {
        match &entry.kind {
            Kind::File {
                size,
                content,
                extents,
                ..
            } => {
                let file = write::create(&self.here.fd, file_name(&entry.path));
                let file = file.map_err(|e| failed("create", &entry.path, e))?;
                let data = data::Data {
                    path: &entry.path,
                    size: *size,
                    content: *content,
                    extents,
                    flats: &self.toc.flats,
                };
                write::copy(&file, &data, self.source, &mut self.buffer)?;
                return write::set_file_metadata(&file, entry)
                    .map_err(|(action, e)| failed(action, &entry.path, e));
            }
            Kind::Symlink { target } => {
                let made = symlinkat(target.as_slice(), &self.here.fd, file_name(&entry.path));
                made.map_err(|e| failed("make the symbolic link", &entry.path, e))?;
            }
            Kind::CharDevice { major, minor } => {
                self.make_node(entry, FileType::CharacterDevice, (*major, *minor))?
            }
            Kind::BlockDevice { major, minor } => {
                self.make_node(entry, FileType::BlockDevice, (*major, *minor))?
            }
            Kind::Fifo => self.make_node(entry, FileType::Fifo, (0, 0))?,
            Kind::Directory { .. } | Kind::Whiteout | Kind::LinkBelow { .. } => return Ok(()),
        }
        let set = write::set_metadata_at(&self.here.fd, file_name(&entry.path), entry);
        set.map_err(|(action, e)| failed(action, &entry.path, e))
    }

    fn make_node(
        &self,
        entry: &Entry,
        kind: FileType,
        (major, minor): (u32, u32),
    ) -> Result<(), UnpackError> {
        let made = mknodat(
            &self.here.fd,
            file_name(&entry.path),
            kind,
            Mode::empty(),
            makedev(major, minor),
        );
        made.map_err(|e| failed("make the special file", &entry.path, e))
    }

    fn make_link(&self, entry: &Entry, first: &[u8]) -> Result<(), UnpackError> {
        let made = linkat(
            &self.root,
            first,
            &self.here.fd,
            file_name(&entry.path),
            AtFlags::empty(),
        );
        made.map_err(|e| failed("make the hard link", &entry.path, e))
    }

    /// Makes `directory` the current one, and it and its parents where the layer doesn't list them.
    fn enter(&mut self, directory: &[u8]) -> Result<(), UnpackError> {
        if self.here.path == directory {
            return Ok(());
        }
        let made = |d: &Entry| d.path == directory;
        if !directory.is_empty() && !self.directories.last().is_some_and(made) {
            self.make_unlisted(directory)?;
        }
        let fd = open_directory(&self.root, directory).map_err(|e| failed("open", directory, e))?;
        self.here = Here {
            path: directory.to_vec(),
            fd,
        };
        Ok(())
    }

    fn make_unlisted(&mut self, directory: &[u8]) -> Result<(), UnpackError> {
        let ends = directory
            .iter()
            .enumerate()
            .filter(|(_, b)| **b == b'/')
            .map(|(i, _)| i);
        for end in ends.chain([directory.len()]) {
            let path = &directory[..end];
            if is_within(&self.here.path, path) {
                continue;
            }
            match mkdirat(&self.root, path, Mode::RWXU) {
                Ok(()) => self.directories.push(unlisted(path)),
                Err(rustix::io::Errno::EXIST) => {}
                Err(e) => return Err(failed("make the directory", path, e)),
            }
        }
        Ok(())
    }

    fn make_directory(&self, path: &[u8]) -> Result<(), UnpackError> {
        if path.is_empty() {
            return Ok(());
        }
        mkdirat(&self.here.fd, file_name(path), Mode::RWXU)
            .map_err(|e| failed("make the directory", path, e))
    }

    fn finish_directories(&self) -> Result<(), UnpackError> {
        for entry in &self.directories {
            let fd = open_directory(&self.root, &entry.path)
                .map_err(|e| failed("open", &entry.path, e))?;
            write::set_directory_metadata(&fd, entry)
                .map_err(|(action, e)| failed(action, &entry.path, e))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
