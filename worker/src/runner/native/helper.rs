//! The worker's side of the step helper.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::Pid;

use super::message::READY;
use super::{STEP_HELPER, sys};
use crate::runner::private;

/// How long a helper may take to be ready, or to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// A step helper that is ready for plans. It ends, and all containers of it, when this is dropped.
#[derive(Debug)]
pub(super) struct Helper {
    /// `None` only while it is dropped.
    control: Option<OwnedFd>,
    child: Mutex<Child>,
}

impl Helper {
    /// Starts one in the mount namespace `home`, wherever the calling thread is: it lives on when a step's is gone.
    pub(super) fn start(home: &File) -> io::Result<Self> {
        std::thread::scope(|scope| {
            let started = scope.spawn(|| {
                private::enter_existing(home)?;
                Self::start_here()
            });
            let panicked = |_| Err(io::Error::other("starting the step helper panicked"));
            started.join().unwrap_or_else(panicked)
        })
    }

    /// Starts this very program, which must know the command [`STEP_HELPER`].
    fn start_here() -> io::Result<Self> {
        let (control, theirs) = sys::socket_pair()?;
        let child = Command::new("/proc/self/exe")
            .arg(STEP_HELPER)
            .env_clear()
            .current_dir("/")
            .stdin(theirs)
            .stdout(Stdio::null())
            .spawn()?;
        // From here on it ends when this is dropped.
        let helper = Self {
            control: Some(control),
            child: Mutex::new(child),
        };
        helper.await_ready()?;
        Ok(helper)
    }

    fn await_ready(&self) -> io::Result<()> {
        let control = self.control()?;
        if !readable_within(control, PATIENCE)? {
            let text = format!(
                "the step helper was not ready after {} s",
                PATIENCE.as_secs()
            );
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        let mut buffer = [0; 16];
        let (length, _) = sys::receive(control, &mut buffer)?;
        if &buffer[..length] != READY {
            return Err(io::Error::other(
                "the step helper ended before it was ready",
            ));
        }
        Ok(())
    }

    /// Sends a plan's files.
    ///
    /// # Errors
    /// `BrokenPipe` or `ConnectionReset` where the helper is gone.
    pub(super) fn send(&self, files: &[BorrowedFd<'_>]) -> io::Result<()> {
        sys::send(self.control()?, b"run", files)
    }

    fn control(&self) -> io::Result<BorrowedFd<'_>> {
        let control = self.control.as_ref();
        control
            .map(AsFd::as_fd)
            .ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // It sees the end of its socket and ends.
        self.control = None;
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = end(child) {
            tracing::warn!(%error, "the step helper could not be waited for");
        }
    }
}

/// Whether a message could not be sent because there is nobody to receive it.
pub(super) fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionReset | NotConnected)
}

/// Waits for a helper that is about to end, and kills one that takes too long.
fn end(child: &mut Child) -> io::Result<()> {
    let process =
        rustix::process::pidfd_open(Pid::from_child(child), rustix::process::PidfdFlags::empty())?;
    if !readable_within(process.as_fd(), PATIENCE)? {
        tracing::warn!(after = ?PATIENCE, "the step helper does not end; killing it");
        child.kill()?;
    }
    child.wait().map(drop)
}

/// Waits until there is something to read, or a process has ended. Whether that was so in time.
pub(super) fn readable_within(file: BorrowedFd<'_>, patience: Duration) -> io::Result<bool> {
    let begun = Instant::now();
    loop {
        let left = patience.saturating_sub(begun.elapsed());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut polled = [PollFd::from_borrowed_fd(file, PollFlags::IN)];
        match poll(&mut polled, Some(&left)) {
            Err(Errno::INTR) => {}
            ready => return Ok(ready? > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_missing_receiver_is_a_helper_that_is_gone() {
        for (number, gone) in [
            (libc::EPIPE, true),
            (libc::ECONNRESET, true),
            (libc::ENOTCONN, true),
            (libc::EMFILE, false),
            (libc::ENOBUFS, false),
            (libc::ENOMEM, false),
            (libc::ETOOMANYREFS, false),
        ] {
            let error = io::Error::from_raw_os_error(number);
            assert_eq!(is_gone(&error), gone, "{error}");
        }
    }
}
