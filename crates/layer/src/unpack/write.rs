//! One file's bytes and metadata.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat, fchmod,
    fchown, fsetxattr, futimens, lsetxattr, openat, utimensat,
};
use rustix::io::Errno;

use super::data::Data;
use super::{UnpackError, failed};
use crate::{Entry, ExtentSource, Kind};

/// What failed, as an infinitive that goes before the path.
type Failure = (&'static str, Errno);

/// Creates a file that must not be there yet.
pub(super) fn create(directory: &OwnedFd, name: &[u8]) -> rustix::io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(directory, name, flags, Mode::RUSR | Mode::WUSR).map(File::from)
}

/// Writes the bytes, leaves holes as holes, and checks the digest.
pub(super) fn copy(
    file: &File,
    data: &Data<'_>,
    source: &dyn ExtentSource,
    buffer: &mut [u8],
) -> Result<(), UnpackError> {
    data.read(source, buffer, &mut |bytes, at| {
        file.write_all_at(bytes, at)
            .map_err(|e| failed("write", data.path, e))
    })?;
    let end = data.extents.last().map_or(0, |e| e.at + e.length);
    if end < data.size {
        file.set_len(data.size)
            .map_err(|e| failed("lengthen", data.path, e))?;
    }
    Ok(())
}

/// Owner first: changing it takes away set-user-id bits and capabilities. Times last.
pub(super) fn set_file_metadata(file: &File, entry: &Entry) -> Result<(), Failure> {
    set_metadata(file, entry)?;
    futimens(file, &times(entry)).map_err(|e| ("set the times of", e))
}

pub(super) fn set_directory_metadata(directory: &OwnedFd, entry: &Entry) -> Result<(), Failure> {
    set_metadata(directory, entry)?;
    if matches!(entry.kind, Kind::Directory { opaque: true }) {
        let set = fsetxattr(
            directory,
            "trusted.overlay.opaque",
            b"y",
            XattrFlags::empty(),
        );
        set.map_err(|e| ("mark as opaque", e))?;
    }
    futimens(directory, &times(entry)).map_err(|e| ("set the times of", e))
}

fn set_metadata(fd: impl AsFd, entry: &Entry) -> Result<(), Failure> {
    let fd = fd.as_fd();
    let (uid, gid) = owner(entry);
    fchown(fd, uid, gid).map_err(|e| ("set the owner of", e))?;
    fchmod(fd, Mode::from_raw_mode(entry.mode)).map_err(|e| ("set the mode of", e))?;
    for (name, value) in &entry.xattrs {
        let set = fsetxattr(fd, name.as_slice(), value, XattrFlags::empty());
        set.map_err(|e| ("set an extended attribute of", e))?;
    }
    Ok(())
}

/// For what cannot be opened: symbolic links, devices, pipes.
pub(super) fn set_metadata_at(
    directory: &OwnedFd,
    name: &[u8],
    entry: &Entry,
) -> Result<(), Failure> {
    let (uid, gid) = owner(entry);
    let own = chownat(directory, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW);
    own.map_err(|e| ("set the owner of", e))?;
    if !matches!(entry.kind, Kind::Symlink { .. }) {
        // It was just made here and is no symbolic link, so there is nothing to follow.
        let mode = chmodat(
            directory,
            name,
            Mode::from_raw_mode(entry.mode),
            AtFlags::empty(),
        );
        mode.map_err(|e| ("set the mode of", e))?;
    }
    if !entry.xattrs.is_empty() {
        // There is no such call relative to a directory; the last name of this path is not followed.
        let path = [
            format!("/proc/self/fd/{}/", directory.as_raw_fd()).as_bytes(),
            name,
        ]
        .concat();
        for (name, value) in &entry.xattrs {
            let set = lsetxattr(path.as_slice(), name.as_slice(), value, XattrFlags::empty());
            set.map_err(|e| ("set an extended attribute of", e))?;
        }
    }
    let set = utimensat(directory, name, &times(entry), AtFlags::SYMLINK_NOFOLLOW);
    set.map_err(|e| ("set the times of", e))
}

fn owner(entry: &Entry) -> (Option<Uid>, Option<Gid>) {
    // The kernel takes the highest number for "leave as it is", and what was made here is root's.
    let uid = (entry.uid != u32::MAX).then(|| Uid::from_raw(entry.uid));
    let gid = (entry.gid != u32::MAX).then(|| Gid::from_raw(entry.gid));
    (uid, gid)
}

fn times(entry: &Entry) -> Timestamps {
    let time = Timespec {
        tv_sec: entry.mtime.seconds,
        tv_nsec: entry.mtime.nanos.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}
