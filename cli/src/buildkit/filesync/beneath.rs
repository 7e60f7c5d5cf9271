//! Opening paths below a directory without ever following a symlink, so that nothing changes its mind in between.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, Stat, openat, readlinkat, statat};

/// A directory, held open.
#[derive(Debug, Clone)]
pub struct Root(Arc<OwnedFd>);

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

impl Root {
    /// Opens a directory by any path; only beneath it symlinks are not followed.
    ///
    /// # Errors
    /// It does not exist, is no directory, or may not be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(Arc::new(openat(CWD, path, DIRECTORY, Mode::empty())?)))
    }

    /// The directory's own descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Opens a directory beneath; the empty path is the root itself.
    ///
    /// # Errors
    /// A component does not exist or is no directory (a symlink is none).
    pub fn dir(&self, path: &[u8]) -> io::Result<OwnedFd> {
        let mut dir = self.0.as_fd().try_clone_to_owned()?;
        for component in path
            .split(|byte| *byte == b'/')
            .filter(|component| !component.is_empty())
        {
            dir = open_dir(dir.as_fd(), component)?;
        }
        Ok(dir)
    }

    /// Opens a regular file beneath for reading.
    ///
    /// # Errors
    /// As [`Root::dir`]; also when it is not a regular file.
    pub fn file(&self, path: &[u8]) -> io::Result<File> {
        let (parent, name) = split(path);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(openat(
            self.dir(parent)?,
            checked(name)?,
            flags,
            Mode::empty(),
        )?);
        if file.metadata()?.is_file() {
            Ok(file)
        } else {
            Err(io::Error::other("no longer a regular file"))
        }
    }

    /// What a path beneath is; a symlink is itself.
    ///
    /// # Errors
    /// As [`Root::dir`].
    pub fn stat(&self, path: &[u8]) -> io::Result<Stat> {
        let (parent, name) = split(path);
        Ok(statat(
            self.dir(parent)?,
            checked(name)?,
            AtFlags::SYMLINK_NOFOLLOW,
        )?)
    }

    /// The target of a symlink beneath; none if the path is something else or does not exist.
    ///
    /// # Errors
    /// The file system fails.
    pub fn link_target(&self, path: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let (parent, name) = split(path);
        let found = self
            .dir(parent)
            .and_then(|dir| Ok(readlinkat(dir, checked(name)?, Vec::new())?));
        match found {
            Ok(target) => Ok(Some(target.into_bytes())),
            Err(error) if is_absence(&error) || error.kind() == io::ErrorKind::InvalidInput => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The names in a directory beneath, in the order of their bytes; none where there is no such directory.
    ///
    /// # Errors
    /// The file system fails.
    pub fn names(&self, path: &[u8]) -> io::Result<Vec<CString>> {
        match self.dir(path).and_then(|dir| names(dir.as_fd())) {
            Err(error) if is_absence(&error) => Ok(Vec::new()),
            other => other,
        }
    }
}

/// Opens a directory in a directory, unless it is a symlink.
///
/// # Errors
/// It does not exist, is something else, or may not be read.
pub(super) fn open_dir(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    Ok(openat(
        parent,
        checked(name)?,
        DIRECTORY | OFlags::NOFOLLOW,
        Mode::empty(),
    )?)
}

/// The names in an open directory, in the order of their bytes.
pub(super) fn names(dir: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// A path for people.
pub(in crate::buildkit) fn lossy(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

/// Whether an error means that there is nothing by that path.
pub(super) fn is_absence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    ) || error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

/// A path's directory and its last component.
pub(in crate::buildkit) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// `..` would lead out, and `.` or nothing names no entry.
fn checked(name: &[u8]) -> io::Result<&[u8]> {
    if matches!(name, b"" | b"." | b"..") {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "not the name of an entry of a directory",
        ));
    }
    Ok(name)
}
