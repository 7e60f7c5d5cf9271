//! Parts of `/proc` and `/sys` that a sandboxed step must not write to, or not see. That it worked is looked at afterwards:
//! a part that stays in sight is an error. A part that this machine does not have is none.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{FileType, StatVfsMountFlags};

use super::rootfs::{attach, copy, make, open_path};
use super::{Result, is_null, prepare};
use crate::runner::native::plan::FileSystem;
use crate::runner::native::sys;

/// Makes paths read-only.
pub(super) fn read_only(paths: &[String]) -> Result<()> {
    paths
        .iter()
        .try_for_each(|path| protect(path).map_err(prepare(format!("making {path} read-only"))))
}

fn protect(path: &str) -> io::Result<()> {
    let Some(place) = found(open_path(path))? else {
        return Ok(());
    };
    let again = copy(place.as_fd(), true)?;
    sys::set_mount_attributes(again.as_fd(), sys::READ_ONLY, true)?;
    attach(again.as_fd(), place.as_fd())?;
    let flags = rustix::fs::fstatvfs(open_path(path)?)?.f_flag;
    if flags.contains(StatVfsMountFlags::RDONLY) {
        Ok(())
    } else {
        Err(io::Error::other("it can still be written to"))
    }
}

/// Hides paths: a directory behind an empty one, anything else behind `null`.
pub(super) fn mask(paths: &[String], null: BorrowedFd<'_>) -> Result<()> {
    paths
        .iter()
        .try_for_each(|path| hide(path, null).map_err(prepare(format!("hiding {path}"))))
}

fn hide(path: &str, null: BorrowedFd<'_>) -> io::Result<()> {
    let Some(place) = found(open_path(path))? else {
        return Ok(());
    };
    let before = rustix::fs::fstat(&place)?;
    let directory = FileType::from_raw_mode(before.st_mode).is_dir();
    let cover = if directory {
        make(&FileSystem {
            kind: "tmpfs".to_owned(),
            source: "tmpfs".to_owned(),
            attributes: sys::READ_ONLY,
            options: vec![("ro".to_owned(), None)],
        })?
    } else {
        copy(null, false)?
    };
    attach(cover.as_fd(), place.as_fd())?;
    let now = open_path(path)?;
    let after = rustix::fs::fstat(&now)?;
    let hidden = if directory {
        let same = rustix::fs::fstat(&cover)?;
        (after.st_dev, after.st_ino) == (same.st_dev, same.st_ino) && after.st_dev != before.st_dev
    } else {
        is_null(&after)
    };
    if hidden {
        Ok(())
    } else {
        Err(io::Error::other("it can still be seen"))
    }
}

/// Absence is no error.
fn found<T>(opened: io::Result<T>) -> io::Result<Option<T>> {
    match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}
