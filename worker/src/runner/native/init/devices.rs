//! What is in a container's `/dev`.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};

use super::{InitError, Result, is_null, prepare};

/// Character devices: name, major, minor number.
const NODES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Fills an empty `/dev`. Returns its `null`, open for reading and writing.
pub(super) fn fill(dev: BorrowedFd<'_>) -> Result<OwnedFd> {
    for (name, major, minor) in NODES {
        let device = rustix::fs::makedev(major, minor);
        let mode = Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(dev, name, FileType::CharacterDevice, mode, device)
            .map_err(prepare(format!("making /dev/{name}")))?;
    }
    for (name, target) in LINKS {
        rustix::fs::symlinkat(target, dev, name).map_err(prepare(format!("making /dev/{name}")))?;
    }
    if Path::new("/proc/kcore").exists() {
        rustix::fs::symlinkat("/proc/kcore", dev, "core").map_err(prepare("making /dev/core"))?;
    }
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let null = rustix::fs::openat(dev, "null", flags, Mode::empty())
        .map_err(prepare("opening /dev/null"))?;
    let stat = rustix::fs::fstat(&null).map_err(prepare("looking at /dev/null"))?;
    if !is_null(&stat) {
        let text = "error during container init: /dev/null is not the null device";
        return Err(InitError::Command(text.to_owned()));
    }
    Ok(null)
}
