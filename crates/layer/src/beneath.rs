//! Opening files under a directory so that no symbolic link leads out of it.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::{Errno, Result};

/// Opens the directory that everything is beneath.
pub(crate) fn open_root(directory: &Path) -> Result<OwnedFd> {
    openat(
        CWD,
        directory,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// Opens the directory at `path` under `root`; the empty path is `root` itself. Any symbolic link is an error.
pub(crate) fn open_directory(root: &OwnedFd, path: &[u8]) -> Result<OwnedFd> {
    open(root, path, OFlags::RDONLY | OFlags::DIRECTORY)
}

/// Opens the regular file at `path` under `root` for reading.
pub(crate) fn open_file(root: &OwnedFd, path: &[u8]) -> Result<OwnedFd> {
    open(
        root,
        path,
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK,
    )
}

fn open(root: &OwnedFd, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
    let path = if path.is_empty() {
        b".".as_slice()
    } else {
        path
    };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    loop {
        match openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // The kernel gives this where a rename elsewhere raced with the lookup.
            Err(Errno::AGAIN | Errno::INTR) => {}
            opened => return opened,
        }
    }
}
