//! What worker and step helper say to each other: the plan one way, what becomes of a container the other.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags};
use serde::{Deserialize, Serialize};

use super::plan::Plan;
use super::sys;

/// The longest report.
const MOST_BYTES: usize = 64 << 10;

/// Sent by the helper, once, when it is ready for plans.
pub(super) const READY: &[u8] = b"ready";

/// What becomes of a container.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Report {
    /// It has a process; a descriptor of it comes along.
    Born,
    /// Everything is made; the command is executed next.
    Starting,
    /// It could not be made.
    Failed(String),
    /// Its first process has ended by itself.
    Exited(i32),
    /// Its first process was ended by a signal.
    Killed(i32),
}

impl Report {
    pub(super) fn send(&self, to: BorrowedFd<'_>) -> io::Result<()> {
        self.send_with(to, &[])
    }

    pub(super) fn send_with(&self, to: BorrowedFd<'_>, files: &[BorrowedFd<'_>]) -> io::Result<()> {
        let shorter;
        let mut report = self;
        if let Self::Failed(text) = self
            && text.len() > MOST_BYTES / 2
        {
            let end = text.floor_char_boundary(MOST_BYTES / 2);
            shorter = Self::Failed(text[..end].to_owned());
            report = &shorter;
        }
        let bytes = postcard::to_stdvec(report).map_err(io::Error::other)?;
        sys::send(to, &bytes, files)
    }

    /// The next report; `None` when no more will come.
    pub(super) fn receive(from: BorrowedFd<'_>) -> io::Result<Option<(Self, Option<OwnedFd>)>> {
        let mut buffer = vec![0; MOST_BYTES];
        let (length, files) = sys::receive(from, &mut buffer)?;
        if length == 0 {
            return Ok(None);
        }
        let report = postcard::from_bytes(&buffer[..length]).map_err(io::Error::other)?;
        Ok(Some((report, files.into_iter().next())))
    }
}

/// Writes a plan into memory that nobody can change afterwards.
pub(super) fn write_plan(plan: &Plan) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = rustix::fs::memfd_create("plan", flags)?;
    let bytes = postcard::to_stdvec(plan).map_err(io::Error::other)?;
    let mut file = File::from(memory);
    file.write_all(&bytes)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(file.as_fd(), seals)?;
    Ok(file.into())
}

/// Reads a plan.
pub(super) fn read_plan(memory: OwnedFd) -> io::Result<Plan> {
    let mut file = File::from(memory);
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    postcard::from_bytes(&bytes).map_err(io::Error::other)
}
