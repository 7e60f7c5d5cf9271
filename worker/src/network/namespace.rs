//! The network namespace of one step.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use super::NetworkError;
use super::maker::Maker;
use super::netlink::Netlink;
use super::tools;
use crate::runner::UserNamespace;

/// A network namespace made ready for one step. It goes, with its devices, when this is dropped and no process is in it.
#[derive(Debug)]
pub(crate) struct Link {
    pub(super) namespace: File,
    pub(super) maker: Arc<Maker>,
    pub(super) host: u8,
}

impl Link {
    /// The namespace's path, as long as this lives.
    pub(crate) fn path(&self) -> PathBuf {
        path(&self.namespace)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.maker.give_back(self.host);
    }
}

/// The path of a file that is open in this process.
pub(super) fn path(file: &File) -> PathBuf {
    PathBuf::from(format!(
        "/proc/{}/fd/{}",
        std::process::id(),
        file.as_raw_fd()
    ))
}

/// The network namespace of the calling thread.
pub(super) fn current() -> io::Result<File> {
    File::open("/proc/thread-self/ns/net")
}

/// Makes a network namespace that belongs to `user`, or to the worker's user namespace without; and a socket to set it up
/// with.
pub(super) fn create(user: Option<&UserNamespace>) -> Result<(File, Netlink), NetworkError> {
    let what = "making a network namespace for a step";
    match user {
        None => of_this_user().map_err(NetworkError::io(what)),
        Some(user) => {
            let namespace = of_another_user(user).map_err(NetworkError::io(what))?;
            let socket = tools::inside(&namespace, || {
                Netlink::open().map_err(NetworkError::io(what))
            })?;
            Ok((namespace, socket))
        }
    }
}

fn of_this_user() -> io::Result<(File, Netlink)> {
    let thread = std::thread::Builder::new()
        .name("netns".to_owned())
        .spawn(|| {
            #[allow(unsafe_code)]
            // SAFETY: no descriptors are unshared, and the thread ends at once.
            unsafe {
                rustix::thread::unshare_unsafe(UnshareFlags::NEWNET)?;
            }
            Ok((current()?, Netlink::open()?))
        })?;
    thread
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
}

/// Only a process of one thread can enter a user namespace: a child does, and waits until its namespace is held.
fn of_another_user(user: &UserNamespace) -> io::Result<File> {
    let namespace = File::open(&user.path)?;
    let mut command = Command::new("cat");
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    #[allow(unsafe_code)]
    // SAFETY: the closure runs in the forked child, which has one thread; it makes system calls and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            rustix::thread::move_into_link_name_space(
                namespace.as_fd(),
                Some(LinkNameSpaceType::User),
            )?;
            rustix::thread::unshare_unsafe(UnshareFlags::NEWNET)?;
            Ok(())
        });
    }
    let mut child = command.spawn()?;
    let opened = File::open(format!("/proc/{}/ns/net", child.id()));
    drop(child.stdin.take());
    child.wait()?;
    opened
}
