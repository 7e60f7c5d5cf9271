//! System calls that the libraries do not offer. Each is a thin, checked wrapper; what they mean is said where they are used.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use super::seccomp::Instruction;

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `MOUNT_ATTR_RDONLY`.
pub(super) const READ_ONLY: u64 = 0x1;

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// The two sides of a new process.
pub(super) enum Cloned {
    /// In the new process.
    Child,
    /// In the old one.
    Parent {
        /// The child.
        process: OwnedFd,
    },
}

/// Makes a process that is a copy of this one, in new namespaces as `flags` say, born into `group` of the unified hierarchy.
/// To be called by a process of one thread.
pub(super) fn clone(flags: i32, group: Option<BorrowedFd<'_>>) -> io::Result<Cloned> {
    let mut process: RawFd = -1;
    let mut flags = flags as u64 | libc::CLONE_PIDFD as u64;
    if group.is_some() {
        flags |= CLONE_INTO_CGROUP;
    }
    // SAFETY: all of it is integers, for which zero is a value.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = flags;
    arguments.pidfd = &raw mut process as u64;
    arguments.exit_signal = libc::SIGCHLD as u64;
    arguments.cgroup = group.map_or(0, |group| group.as_raw_fd() as u64);
    // SAFETY: without CLONE_VM and a stack it acts like fork: the child goes on with a copy of everything. The process has
    // one thread (the caller's promise), so no lock that the child might need is held by another.
    let pid = check(unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw mut arguments,
            size_of::<libc::clone_args>(),
        )
    })?;
    if pid == 0 {
        return Ok(Cloned::Child);
    }
    // SAFETY: the kernel has just opened it for this process.
    let process = unsafe { OwnedFd::from_raw_fd(process) };
    Ok(Cloned::Parent { process })
}

/// Ends the process without running anything of the program that it is a copy of.
pub(super) fn exit(code: i32) -> ! {
    // SAFETY: it does not return.
    unsafe { libc::_exit(code) }
}

/// Changes attributes of the mount `mount` is the root of; with `below`, of those below it too.
pub(super) fn set_mount_attributes(
    mount: BorrowedFd<'_>,
    attributes: u64,
    below: bool,
) -> io::Result<()> {
    let change = libc::mount_attr {
        attr_set: attributes,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let recursive = if below { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the kernel reads an empty string and the structure, which live as long as the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            &raw const change,
            size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}

/// Closes every descriptor but `kept` and the standard ones; `kept` is closed when a program is executed. To be called by a
/// process that will not use or drop what it owns of them.
pub(super) fn close_all_but(kept: BorrowedFd<'_>) -> io::Result<()> {
    rustix::io::fcntl_setfd(kept, rustix::io::FdFlags::CLOEXEC)?;
    let number = kept.as_raw_fd().cast_unsigned();
    for (first, last) in [(3, number - 1), (number + 1, u32::MAX)] {
        if first <= last {
            // SAFETY: the caller owns none that it uses or drops afterwards.
            check(unsafe { libc::close_range(first, last, 0) }.into())?;
        }
    }
    Ok(())
}

/// Closes every descriptor from `first` on. To be called before any is owned.
pub(super) fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: the caller has just been started and owns no descriptor beyond the standard ones.
    check(unsafe { libc::close_range(first, u32::MAX, 0) }.into()).map(drop)
}

/// Filters the system calls of this process and all that come of it.
pub(super) fn filter_calls(program: &[Instruction]) -> io::Result<()> {
    let length = u16::try_from(program.len())
        .map_err(|_| io::Error::other("the system call filter is too long"))?;
    let program = libc::sock_fprog {
        len: length,
        filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut(),
    };
    // SAFETY: `Instruction` is laid out like `sock_filter`; the kernel copies the program, whose length is right.
    check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const program,
        )
    })
    .map(drop)
}

/// Gives the process a session keyring of its own, out of reach of the one it had. Nothing where the kernel has no keys.
pub(super) fn leave_keyring(name: &CStr) -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: the kernel reads the name, which lives as long as the call.
    let joined = check(unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr())
    });
    match joined {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        other => other.map(drop),
    }
}

/// Switches the loopback device of the current network namespace on.
pub(super) fn start_loopback() -> io::Result<()> {
    // SAFETY: a plain call; its result is checked.
    let socket = check(
        unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) }.into(),
    )?;
    // SAFETY: the kernel has just opened it.
    let socket = unsafe { OwnedFd::from_raw_fd(socket as RawFd) };
    // SAFETY: all of it is integers, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    // SAFETY: both calls read and write a structure of the size that they expect.
    unsafe {
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request).into())?;
        request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request).into())?;
    }
    Ok(())
}

/// Executes a program. Returns only where that failed.
pub(super) fn execute(program: &CStr, arguments: &[CString], environment: &[CString]) -> io::Error {
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: both lists end with a null pointer, and what they point to lives as long as the call.
    unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

/// Executes the program that `file` is open on. Returns only where that failed.
pub(super) fn execute_file(file: BorrowedFd<'_>, arguments: &[CString]) -> io::Error {
    let (arguments, environment) = (pointers(arguments), pointers(&[]));
    // SAFETY: as above; the path is empty, so the descriptor itself is meant.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    let all = strings.iter().map(|string| string.as_ptr());
    all.chain([ptr::null()]).collect()
}

/// Ignores signals.
pub(super) fn ignore_signals(signals: &[i32]) {
    for signal in signals {
        // SAFETY: ignoring runs no code of this program.
        unsafe { libc::signal(*signal, libc::SIG_IGN) };
    }
}

/// Has the kernel do its own with every signal, also with those that the C library keeps for itself.
pub(super) fn default_signals() {
    // The kernel's structure (handler, flags, restorer, mask), of which all is zero: the default.
    let default = [0_u64; 4];
    for signal in 1..=64 {
        // SAFETY: the kernel reads the structure; it refuses the two signals that cannot be changed.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                ptr::null_mut::<u64>(),
                size_of::<u64>(),
            )
        };
    }
}

/// Lets every signal through.
pub(super) fn unblock_signals() {
    // SAFETY: the set is initialised by the first call, and the second only reads it.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
}

/// Sets a resource limit of this process.
pub(super) fn limit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit64 {
        rlim_cur: soft,
        rlim_max: hard,
    };
    // SAFETY: the kernel reads the structure, and writes to no old one.
    check(unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            0,
            resource,
            &raw const limit,
            ptr::null_mut::<libc::rlimit64>(),
        )
    })
    .map(drop)
}

/// The most descriptors in one message.
pub(super) const MOST_FILES: usize = 64;

/// Room for a control message with that many descriptors, aligned as the kernel wants it.
type Control = [u64; 8 + MOST_FILES];

/// Sends one message with descriptors on a socket that keeps messages apart.
pub(super) fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    files: &[BorrowedFd<'_>],
) -> io::Result<()> {
    assert!(files.len() <= MOST_FILES, "the caller sends few files");
    let mut part = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    let mut control: Control = [0; 8 + MOST_FILES];
    // SAFETY: the header points to one part and to a control buffer that is longer than what is announced; the kernel only
    // reads. `CMSG_FIRSTHDR` is not null, as there is room for a header.
    let sent = unsafe {
        let mut header: libc::msghdr = std::mem::zeroed();
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        if !files.is_empty() {
            let size = (files.len() * size_of::<RawFd>()) as u32;
            header.msg_control = control.as_mut_ptr().cast();
            header.msg_controllen = libc::CMSG_SPACE(size) as _;
            let message = libc::CMSG_FIRSTHDR(&raw const header);
            (*message).cmsg_level = libc::SOL_SOCKET;
            (*message).cmsg_type = libc::SCM_RIGHTS;
            (*message).cmsg_len = libc::CMSG_LEN(size) as _;
            let numbers = libc::CMSG_DATA(message).cast::<RawFd>();
            for (index, file) in files.iter().enumerate() {
                numbers.add(index).write_unaligned(file.as_raw_fd());
            }
        }
        libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_NOSIGNAL)
    };
    check(sent as libc::c_long).map(drop)
}

/// Receives one message and its descriptors. No bytes at the other side's end.
pub(super) fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let mut control: Control = [0; 8 + MOST_FILES];
    let mut files = Vec::new();
    // SAFETY: the header points to buffers of the announced lengths. Control messages are walked by the macros of the
    // system; each descriptor in them was opened for this process by the kernel and is owned by nobody yet.
    let (length, flags) = unsafe {
        let mut header: libc::msghdr = std::mem::zeroed();
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of::<Control>() as _;
        let length = loop {
            match check(
                libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_CMSG_CLOEXEC)
                    as libc::c_long,
            ) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        let mut message = libc::CMSG_FIRSTHDR(&raw const header);
        while !message.is_null() {
            if (*message).cmsg_level == libc::SOL_SOCKET && (*message).cmsg_type == libc::SCM_RIGHTS
            {
                let size = (*message).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                let numbers = libc::CMSG_DATA(message).cast::<RawFd>();
                for index in 0..size / size_of::<RawFd>() {
                    files.push(OwnedFd::from_raw_fd(numbers.add(index).read_unaligned()));
                }
            }
            message = libc::CMSG_NXTHDR(&raw const header, message);
        }
        (length as usize, header.msg_flags)
    };
    if flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
        return Err(io::Error::other(
            "a message between worker and step helper was cut",
        ));
    }
    Ok((length, files))
}

/// Two connected sockets that keep messages apart.
pub(super) fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends: [RawFd; 2] = [-1; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: the kernel writes two descriptors, which nobody else owns.
    unsafe {
        check(libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()).into())?;
        Ok((OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])))
    }
}
