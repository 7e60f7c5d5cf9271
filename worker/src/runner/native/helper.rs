//! The worker's side of the step helper.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::message::READY;
use super::{STEP_HELPER, sys};
use crate::runner::private;

/// How long a helper may take to be ready.
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
        let patience = Timespec::try_from(PATIENCE).map_err(io::Error::other)?;
        let mut polled = [PollFd::from_borrowed_fd(control, PollFlags::IN)];
        if poll(&mut polled, Some(&patience))? == 0 {
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
        if let Err(error) = child.wait() {
            tracing::warn!(%error, "the step helper could not be waited for");
        }
    }
}
