//! A user namespace that owns registrations of emulators.
//!
//! The kernel looks up `binfmt_misc` handlers in the user namespace of the process that executes a program, so this
//! namespace's reach exactly the steps that run in it. It maps every id to itself.
//!
//! Only a process of one thread can enter or make a user namespace, so a forked child does it, and ends once the worker
//! holds file descriptors to what it made: the namespace, and the file system with the registrations.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use rustix::process::{Pid, WaitOptions};
use rustix::thread::UnshareFlags;

use super::Hold;
use crate::runner::{IdMapping, UserNamespace};

/// Every id but the last one, which stands for "none".
const ALL_IDS: u32 = u32::MAX;

/// A namespace with registrations.
pub(super) struct Registered {
    pub(super) user: UserNamespace,
}

/// Makes a user namespace and writes `lines` into its `binfmt_misc`. A line that the kernel refuses is no error: the
/// trial shows what works.
pub(super) fn create(lines: &[Vec<u8>]) -> io::Result<Registered> {
    let (mut answers, answer) = io::pipe()?;
    let (go, mut start) = io::pipe()?;
    let parents = [answers.as_raw_fd(), start.as_raw_fd()];
    // SAFETY: the child makes system calls only, on memory that exists before the fork, and never returns.
    #[allow(unsafe_code)]
    let pid = match unsafe { libc::fork() } {
        -1 => return Err(io::Error::last_os_error()),
        0 => {
            // SAFETY: the child's copies of the parent's ends, which nothing in the child uses; with them it would never
            // see the parent's end. `_exit` runs nothing of this program.
            unsafe {
                for end in parents {
                    libc::close(end);
                }
                libc::_exit(child(lines, answer.as_fd(), go.as_fd()))
            }
        }
        pid => Pid::from_raw(pid).ok_or_else(|| io::Error::other("fork returned no process"))?,
    };
    drop((answer, go));
    let result = attend(pid, &mut answers, &mut start);
    drop(start);
    // The child ends when its pipes do.
    rustix::process::waitpid(Some(pid), WaitOptions::empty())?;
    result
}

/// What the child does: three steps, each reported by one byte of zero or of the error's number.
fn child(
    lines: &[Vec<u8>],
    answer: std::os::fd::BorrowedFd<'_>,
    go: std::os::fd::BorrowedFd<'_>,
) -> i32 {
    let say = |result: Result<(), rustix::io::Errno>| {
        let byte = result.map_or_else(|error| error.raw_os_error() as u8, |()| 0);
        rustix::io::write(answer, &[byte]).is_ok() && byte == 0
    };
    let wait = || matches!(rustix::io::read(go, &mut [0u8; 1]), Ok(1));
    #[allow(unsafe_code)]
    // SAFETY: the child has one thread, and no descriptors are unshared.
    let made =
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNS) };
    if !say(made) || !wait() {
        return 1;
    }
    let registered = register(lines);
    let descriptor = registered.as_ref().map_or(-1, |fd| fd.as_raw_fd());
    if !say(registered.as_ref().map(|_| ()).map_err(|error| *error)) {
        return 2;
    }
    if rustix::io::write(answer, &descriptor.to_ne_bytes()).is_err() {
        return 3;
    }
    wait();
    0
}

/// Mounts the namespace's `binfmt_misc`, attached nowhere, and writes the registrations.
fn register(lines: &[Vec<u8>]) -> Result<OwnedFd, rustix::io::Errno> {
    let context = rustix::mount::fsopen(c"binfmt_misc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(context.as_fd())?;
    let mount = rustix::mount::fsmount(
        context.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )?;
    for line in lines {
        let register = rustix::fs::openat(
            &mount,
            c"register",
            OFlags::WRONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        // Whether it took is seen by trial.
        let _ = rustix::io::write(&register, line);
    }
    Ok(mount)
}

/// The worker's side: maps the ids, then takes hold of what the child made.
fn attend(pid: Pid, answers: &mut impl Read, start: &mut impl Write) -> io::Result<Registered> {
    let process = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
    check(
        answers,
        "making a user namespace (is user.max_user_namespaces zero?)",
    )?;
    for file in ["uid_map", "gid_map"] {
        fs::write(process.join(file), format!("0 0 {ALL_IDS}"))?;
    }
    start.write_all(&[0])?;
    check(
        answers,
        "mounting binfmt_misc in a user namespace (Linux 6.7 or newer can)",
    )?;
    let mut number = [0; 4];
    answers.read_exact(&mut number)?;
    let files = File::open(
        process
            .join("fd")
            .join(i32::from_ne_bytes(number).to_string()),
    )?;
    let namespace = OwnedFd::from(File::open(process.join("ns/user"))?);
    let path = PathBuf::from(format!(
        "/proc/{}/fd/{}",
        std::process::id(),
        namespace.as_raw_fd()
    ));
    let hold: Hold = Arc::new((namespace, files));
    let mappings = vec![IdMapping {
        inside: 0,
        outside: 0,
        size: ALL_IDS,
    }];
    Ok(Registered {
        user: UserNamespace {
            path,
            mappings,
            hold,
        },
    })
}

fn check(answers: &mut impl Read, what: &str) -> io::Result<()> {
    let mut byte = [0];
    answers.read_exact(&mut byte)?;
    match byte[0] {
        0 => Ok(()),
        number => {
            let error = io::Error::from_raw_os_error(number.into());
            Err(io::Error::new(error.kind(), format!("{what}: {error}")))
        }
    }
}
