//! Reads the metadata of everything in the upper directory, with one directory open at a time.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, FileType, Stat, lgetxattr, llistxattr, major, minor, readlinkat, statat,
};
use rustix::io::Errno;

use super::{CaptureError, read_error};
use crate::assemble::bare;
use crate::beneath::open_directory;
use crate::check::is_kept_xattr;
use crate::path::join;
use crate::{Entry, Kind, Time, Tree};

/// Extended attributes by name.
type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// Something in the upper directory.
pub(super) struct Found {
    pub(super) path: Vec<u8>,
    pub(super) what: What,
    /// Mode, owner, times and attributes; its path and kind mean nothing yet.
    pub(super) metadata: Entry,
    /// Whether what lower layers have at this path would show without this entry.
    pub(super) below_visible: bool,
}

/// What it is.
pub(super) enum What {
    /// A regular file, whose content is read later.
    File {
        size: u64,
        inode: u64,
        /// It has more than one name.
        linked: bool,
    },
    /// overlayfs' whiteout.
    Gone,
    Socket,
    /// Everything that is known at once.
    Other(Kind),
}

impl Found {
    /// Whether the file has more than one name.
    pub(super) fn is_linked(&self) -> bool {
        matches!(self.what, What::File { linked: true, .. })
    }
}

/// Everything under `root`, and the root itself, in no order.
pub(super) fn walk(root: &OwnedFd, lower: &Tree) -> Result<Vec<Found>, CaptureError> {
    let mut found = Vec::new();
    let mut waiting: Vec<(Vec<u8>, bool)> = Vec::new();
    let top = look(root, b".", Vec::new(), true, lower)?;
    waiting.extend(top.iter().filter_map(descend(lower)));
    found.extend(top);
    while let Some((path, visible)) = waiting.pop() {
        let directory = open_directory(root, &path).map_err(|e| read_error("open", &path, e))?;
        for name in names(&directory, &path)? {
            let one = look(&directory, &name, join(&path, &name), visible, lower)?;
            waiting.extend(one.iter().filter_map(descend(lower)));
            found.extend(one);
        }
    }
    Ok(found)
}

/// A directory to go into, with whether lower layers show through in it.
fn descend(lower: &Tree) -> impl Fn(&Found) -> Option<(Vec<u8>, bool)> {
    |found| match &found.what {
        What::Other(Kind::Directory { opaque }) => {
            let visible = found.below_visible && !opaque && is_directory(lower, &found.path);
            Some((found.path.clone(), visible))
        }
        _ => None,
    }
}

fn is_directory(lower: &Tree, path: &[u8]) -> bool {
    lower.get(path).is_some_and(|node| node.is_directory())
}

fn names(directory: &OwnedFd, path: &[u8]) -> Result<Vec<Vec<u8>>, CaptureError> {
    let failed = |e: Errno| read_error("list", path, e);
    let mut names = Vec::new();
    for entry in Dir::read_from(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}

/// Reads one entry's metadata.
fn look(
    directory: &OwnedFd,
    name: &[u8],
    path: Vec<u8>,
    below_visible: bool,
    lower: &Tree,
) -> Result<Option<Found>, CaptureError> {
    let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|e| read_error("examine", &path, e))?;
    let (xattrs, opaque) =
        xattrs(directory, name).map_err(|e| read_error("read the attributes of", &path, e))?;
    let what = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => What::File {
            size: stat.st_size as u64,
            inode: stat.st_ino,
            linked: stat.st_nlink > 1,
        },
        FileType::Directory => What::Other(Kind::Directory {
            opaque: opaque && below_visible && is_directory(lower, &path),
        }),
        FileType::Symlink => {
            let target = readlinkat(directory, name, Vec::new())
                .map_err(|e| read_error("read the link", &path, e))?;
            What::Other(Kind::Symlink {
                target: CString::into_bytes(target),
            })
        }
        FileType::CharacterDevice if stat.st_rdev == 0 => What::Gone,
        FileType::CharacterDevice => What::Other(Kind::CharDevice {
            major: major(stat.st_rdev),
            minor: minor(stat.st_rdev),
        }),
        FileType::BlockDevice => What::Other(Kind::BlockDevice {
            major: major(stat.st_rdev),
            minor: minor(stat.st_rdev),
        }),
        FileType::Fifo => What::Other(Kind::Fifo),
        FileType::Socket => What::Socket,
        FileType::Unknown => return Ok(None),
    };
    Ok(Some(Found {
        what,
        metadata: metadata(&stat, xattrs),
        path,
        below_visible,
    }))
}

fn metadata(stat: &Stat, xattrs: Xattrs) -> Entry {
    Entry {
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: Time {
            seconds: stat.st_mtime,
            nanos: stat.st_mtime_nsec as u32,
        },
        xattrs,
        ..bare(Vec::new(), Kind::Fifo, stat.st_mode & 0o7777)
    }
}

/// The attributes that a layer keeps, and whether overlayfs marked a directory as opaque.
fn xattrs(directory: &OwnedFd, name: &[u8]) -> Result<(Xattrs, bool), Errno> {
    // There are no such calls relative to a directory; the last name of this path is not followed.
    let path = [
        format!("/proc/self/fd/{}/", directory.as_raw_fd()).as_bytes(),
        name,
    ]
    .concat();
    let mut list = Vec::with_capacity(1024);
    match read_growing(&mut list, |buffer| {
        llistxattr(path.as_slice(), rustix::buffer::spare_capacity(buffer))
    }) {
        Ok(()) => {}
        Err(Errno::OPNOTSUPP) => return Ok((BTreeMap::new(), false)),
        Err(e) => return Err(e),
    }
    let (mut kept, mut opaque) = (BTreeMap::new(), false);
    for attribute in list.split(|b| *b == 0).filter(|a| !a.is_empty()) {
        let mut value = Vec::with_capacity(256);
        read_growing(&mut value, |buffer| {
            lgetxattr(
                path.as_slice(),
                attribute,
                rustix::buffer::spare_capacity(buffer),
            )
        })?;
        opaque |= matches!(
            attribute,
            b"trusted.overlay.opaque" | b"user.overlay.opaque"
        ) && value == b"y";
        let host = attribute.starts_with(b"security.") && attribute != b"security.capability";
        if is_kept_xattr(attribute) && !host {
            kept.insert(attribute.to_vec(), value);
        }
    }
    Ok((kept, opaque))
}

/// Calls `read` with an empty buffer, of up to the kernel's limit of 64 KiB, that grows until it is large enough.
fn read_growing(
    buffer: &mut Vec<u8>,
    mut read: impl FnMut(&mut Vec<u8>) -> Result<usize, Errno>,
) -> Result<(), Errno> {
    loop {
        buffer.clear();
        match read(buffer) {
            Err(Errno::RANGE) if buffer.capacity() < 1 << 20 => {
                buffer.reserve(buffer.capacity() * 4)
            }
            Err(e) => return Err(e),
            Ok(_) => return Ok(()),
        }
    }
}
