//! A program that looks around in the container it finds itself in, and tries what must not work.
//!
//! It is the program of this crate's tests under a hidden command, put into a container by the tests that compare runners.
//! Each line it prints is a name, a colon and what was found.

#![allow(unsafe_code)]

use std::fmt::Display;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

/// The hidden command.
pub(super) const COMMAND: &str = "step-probe";

/// Prints everything.
pub(super) fn look_around() {
    status();
    mounts();
    places();
    files();
    for (name, result) in calls() {
        say(&format!("call {name}"), outcome(result));
    }
    for (name, path, text) in WRITES {
        say(&format!("write {name}"), outcome(fs::write(path, text)));
    }
    devices();
}

fn say(name: &str, value: impl Display) {
    println!("{name}: {value}");
}

fn outcome<T>(result: io::Result<T>) -> String {
    match result {
        Ok(_) => "done".to_owned(),
        Err(error) => match error.raw_os_error() {
            Some(libc::EPERM) => "EPERM".to_owned(),
            Some(libc::ENOSYS) => "ENOSYS".to_owned(),
            Some(libc::EACCES) => "EACCES".to_owned(),
            Some(libc::EROFS) => "EROFS".to_owned(),
            Some(number) => format!("error {number}"),
            None => error.to_string(),
        },
    }
}

/// What the kernel says of this process, without what differs from run to run.
fn status() {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    const DIFFERENT: [&str; 8] = [
        "Vm",
        "Rss",
        "volun",
        "nonvol",
        "State",
        "SigQ",
        "Cpus_allowed",
        // Those of the test's own surroundings, which a runtime program passes on.
        "SigIgn",
    ];
    for line in status.lines() {
        if !DIFFERENT.iter().any(|name| line.starts_with(name)) {
            say("status", line);
        }
    }
    for group in GROUPS {
        let path = Path::new("/sys/fs/cgroup").join(group);
        for line in fs::read_to_string(path).unwrap_or_default().lines() {
            say(group, line);
        }
    }
    for file in [
        "limits",
        "cgroup",
        "oom_score_adj",
        "environ",
        "cmdline",
        "uid_map",
        "comm",
        "loginuid",
    ] {
        let text = fs::read(format!("/proc/self/{file}")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).replace('\0', "\n");
        for line in text.lines() {
            say(file, line);
        }
    }
    let current = std::env::current_dir();
    say(
        "cwd",
        current.map_or_else(|error| error.to_string(), |path| path.display().to_string()),
    );
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    say("hostname", name.trim());
    // SAFETY: plain questions.
    unsafe {
        say("session", libc::getsid(0));
        say("parent", libc::getppid());
        say("dumpable", libc::prctl(libc::PR_GET_DUMPABLE));
        say("securebits", libc::prctl(libc::PR_GET_SECUREBITS));
        say("keep capabilities", libc::prctl(libc::PR_GET_KEEPCAPS));
        let mut signal = 0;
        libc::prctl(libc::PR_GET_PDEATHSIG, &raw mut signal);
        say("parent's death", signal);
    }
}

/// What the control groups limit, where the machine has them.
const GROUPS: [&str; 9] = [
    "cpu/cpu.cfs_period_us",
    "cpu/cpu.cfs_quota_us",
    "cpu/cpu.shares",
    "cpuset/cpuset.cpus",
    "cpuset/cpuset.mems",
    "devices/devices.list",
    "memory/memory.limit_in_bytes",
    "memory/memory.memsw.limit_in_bytes",
    "pids/pids.max",
];

/// The mounts without their numbers.
fn mounts() {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for line in mounts.lines() {
        let words: Vec<&str> = line.split(' ').skip(3).collect();
        say("mount", words.join(" "));
    }
}

/// Places that say something: what they are, and to whom they belong.
fn places() {
    for dir in [
        "/",
        "/dev",
        "/dev/pts",
        "/dev/shm",
        "/dev/mqueue",
        "/proc",
        "/sys",
        "/sys/fs/cgroup",
        "/etc",
    ] {
        place(Path::new(dir));
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths.iter().filter(|_| !matches!(dir, "/proc" | "/sys")) {
            place(path);
        }
    }
    for path in super::config::MASKED
        .iter()
        .chain(&super::config::READ_ONLY)
    {
        place(Path::new(path));
        let read = fs::read(path).map(|bytes| {
            if bytes.is_empty() {
                "nothing"
            } else {
                "something"
            }
        });
        say(
            &format!("reading {path}"),
            read.map_or_else(|error| error.kind().to_string(), str::to_owned),
        );
        let listed = fs::read_dir(path).map(Iterator::count);
        say(
            &format!("listing {path}"),
            listed.map_or_else(|error| error.kind().to_string(), |count| count.to_string()),
        );
    }
}

fn place(path: &Path) {
    let name = format!("place {}", path.display());
    let Ok(found) = fs::symlink_metadata(path) else {
        return say(&name, "not there");
    };
    let kind = found.file_type();
    let device = if kind.is_char_device() || kind.is_block_device() {
        format!(
            " {}:{}",
            libc::major(found.rdev()),
            libc::minor(found.rdev())
        )
    } else {
        String::new()
    };
    let target = fs::read_link(path).map_or_else(
        |_| String::new(),
        |target| format!(" -> {}", target.display()),
    );
    let (mode, owner) = (found.permissions().mode(), (found.uid(), found.gid()));
    say(&name, format!("{mode:o} {owner:?}{device}{target}"));
}

/// The open files.
fn files() {
    let mut open: Vec<(i32, String)> = Vec::new();
    for number in 0..1024 {
        if let Ok(target) = fs::read_link(format!("/proc/self/fd/{number}")) {
            let target = target.to_string_lossy().into_owned();
            open.push((
                number,
                target.split(':').next().unwrap_or_default().to_owned(),
            ));
        }
    }
    // The first one is a runtime program's pipe or the null device: nothing comes from either.
    let read = io::copy(&mut io::stdin(), &mut io::sink());
    say(
        "reading input",
        read.map_or_else(|error| error.to_string(), |bytes| bytes.to_string()),
    );
    for (number, target) in open.into_iter().filter(|(number, _)| *number > 0) {
        say(&format!("open {number}"), target);
    }
    let program = rustix::fs::statvfs("/proc/self/exe").map(|found| found.f_flag);
    let read_only = program.map(|flags| flags.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    say("program file is read-only", format!("{read_only:?}"));
    let reopened = fs::OpenOptions::new().write(true).open("/dev/stdout");
    say("reopening /dev/stdout", outcome(reopened));
}

const WRITES: [(&str, &str, &str); 8] = [
    ("sysctl", "/proc/sys/kernel/panic", "1"),
    ("core pattern", "/proc/sys/kernel/core_pattern", "|/bin/sh"),
    ("sysrq", "/proc/sysrq-trigger", "h"),
    ("devices", "/sys/fs/cgroup/devices/devices.allow", "a"),
    (
        "release agent",
        "/sys/fs/cgroup/memory/release_agent",
        "/bin/sh",
    ),
    ("oom score", "/proc/self/oom_score_adj", "-1000"),
    ("uevent helper", "/sys/kernel/uevent_helper", "/bin/sh"),
    ("irq", "/proc/irq/default_smp_affinity", "1"),
];

/// Nodes of the machine's devices: they can be made, and not opened.
fn devices() {
    let nodes = [
        ("disk", libc::S_IFBLK, 254, 0),
        ("other disk", libc::S_IFBLK, 8, 0),
        ("memory", libc::S_IFCHR, 1, 1),
        ("kernel log", libc::S_IFCHR, 1, 11),
        ("fuse", libc::S_IFCHR, 10, 229),
        ("null", libc::S_IFCHR, 1, 3),
    ];
    for (name, kind, major, minor) in nodes {
        let path = format!("/tmp/{name}\0");
        // SAFETY: the path ends with a zero byte.
        let made = unsafe {
            libc::mknod(
                path.as_ptr().cast(),
                kind | 0o666,
                libc::makedev(major, minor),
            )
        };
        say(&format!("making {name}"), outcome(checked(made.into())));
        let opened = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(path.trim_end_matches('\0'));
        say(&format!("opening {name}"), outcome(opened));
    }
}

fn checked(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// System calls, with arguments that do as little as possible should they be allowed. Those that a filter of an older
/// runtime does not know by name are left out.
fn calls() -> Vec<(&'static str, io::Result<libc::c_long>)> {
    let mut results = Vec::new();
    macro_rules! attempt {
        ($name:expr, $number:expr $(, $argument:expr)*) => {
            // SAFETY: the arguments are numbers and strings that live long enough; what the kernel might write to is null.
            results.push(($name, checked(unsafe { libc::syscall($number as libc::c_long $(, $argument)*) })));
        };
    }
    let (none, empty) = (0_usize, c"".as_ptr());
    attempt!(
        "mount",
        libc::SYS_mount,
        c"none".as_ptr(),
        c"/tmp".as_ptr(),
        c"tmpfs".as_ptr(),
        none,
        none
    );
    attempt!("umount", libc::SYS_umount2, c"/proc".as_ptr(), 0);
    attempt!(
        "pivot_root",
        libc::SYS_pivot_root,
        c"/".as_ptr(),
        c"/tmp".as_ptr()
    );
    attempt!("unshare user", libc::SYS_unshare, libc::CLONE_NEWUSER);
    attempt!("unshare mount", libc::SYS_unshare, libc::CLONE_NEWNS);
    attempt!("setns", libc::SYS_setns, 0, 0);
    attempt!("clone3", libc::SYS_clone3, none, none);
    attempt!(
        "clone user",
        libc::SYS_clone,
        libc::CLONE_NEWUSER | libc::SIGCHLD,
        none,
        none,
        none,
        none
    );
    attempt!("open_tree", libc::SYS_open_tree, libc::AT_FDCWD, empty, 0);
    attempt!("fsopen", libc::SYS_fsopen, c"tmpfs".as_ptr(), 0);
    attempt!("move_mount", libc::SYS_move_mount, -1, empty, -1, empty, 0);
    attempt!(
        "mount_setattr",
        libc::SYS_mount_setattr,
        -1,
        empty,
        0,
        none,
        none
    );
    attempt!(
        "open_by_handle_at",
        libc::SYS_open_by_handle_at,
        libc::AT_FDCWD,
        none,
        0
    );
    attempt!(
        "name_to_handle_at",
        libc::SYS_name_to_handle_at,
        libc::AT_FDCWD,
        empty,
        none,
        none,
        0
    );
    attempt!("keyctl", libc::SYS_keyctl, 0, -3, 0);
    attempt!(
        "add_key",
        libc::SYS_add_key,
        c"user".as_ptr(),
        c"a".as_ptr(),
        c"b".as_ptr(),
        1,
        -2
    );
    attempt!(
        "request_key",
        libc::SYS_request_key,
        c"user".as_ptr(),
        c"a".as_ptr(),
        none,
        0
    );
    attempt!("bpf", libc::SYS_bpf, 0, none, 0);
    attempt!(
        "perf_event_open",
        libc::SYS_perf_event_open,
        none,
        0,
        -1,
        -1,
        0
    );
    attempt!("userfaultfd", libc::SYS_userfaultfd, 0);
    attempt!("io_uring_setup", libc::SYS_io_uring_setup, 1, none);
    attempt!("init_module", libc::SYS_init_module, none, 0, empty);
    attempt!("finit_module", libc::SYS_finit_module, -1, empty, 0);
    attempt!(
        "delete_module",
        libc::SYS_delete_module,
        c"none".as_ptr(),
        0
    );
    attempt!("kexec_load", libc::SYS_kexec_load, 0, 0, none, 0);
    attempt!("reboot", libc::SYS_reboot, 0, 0, 0, none);
    attempt!("swapon", libc::SYS_swapon, c"/none".as_ptr(), 0);
    attempt!("acct", libc::SYS_acct, c"/none".as_ptr());
    attempt!("quotactl", libc::SYS_quotactl, -1, none, 0, none);
    attempt!("settimeofday", libc::SYS_settimeofday, none, none);
    attempt!("clock_settime", libc::SYS_clock_settime, 0, none);
    attempt!("sethostname", libc::SYS_sethostname, c"other".as_ptr(), 5);
    attempt!(
        "setdomainname",
        libc::SYS_setdomainname,
        c"other".as_ptr(),
        5
    );
    attempt!("syslog", libc::SYS_syslog, 10, none, 0);
    attempt!("fanotify_init", libc::SYS_fanotify_init, 0, 0);
    attempt!("lookup_dcookie", libc::SYS_lookup_dcookie, none, none, 0);
    attempt!("kcmp", libc::SYS_kcmp, 1, 1, 0, 0, 0);
    attempt!("mbind", libc::SYS_mbind, none, 0, 0, none, 0, 0);
    attempt!("migrate_pages", libc::SYS_migrate_pages, 0, 0, none, none);
    attempt!(
        "move_pages",
        libc::SYS_move_pages,
        0,
        0,
        none,
        none,
        none,
        0
    );
    attempt!("set_mempolicy", libc::SYS_set_mempolicy, 0, none, 0);
    attempt!("vhangup", libc::SYS_vhangup);
    attempt!("nfsservctl", libc::SYS_nfsservctl, 0, none, none);
    attempt!(
        "personality question",
        libc::SYS_personality,
        0xffff_ffff_u64
    );
    attempt!("personality random", libc::SYS_personality, 0x004_0000);
    attempt!(
        "socket alg",
        libc::SYS_socket,
        libc::AF_ALG,
        libc::SOCK_SEQPACKET,
        0
    );
    attempt!(
        "socket vsock",
        libc::SYS_socket,
        libc::AF_VSOCK,
        libc::SOCK_STREAM,
        0
    );
    attempt!(
        "socket inet",
        libc::SYS_socket,
        libc::AF_INET,
        libc::SOCK_STREAM,
        0
    );
    attempt!(
        "socket packet",
        libc::SYS_socket,
        libc::AF_PACKET,
        libc::SOCK_RAW,
        0
    );
    attempt!(
        "socket with high bits",
        libc::SYS_socket,
        38_u64 | 1 << 32,
        libc::SOCK_STREAM,
        0
    );
    attempt!(
        "ptrace first process",
        libc::SYS_ptrace,
        libc::PTRACE_ATTACH,
        1,
        none,
        none
    );
    attempt!(
        "ptrace another",
        libc::SYS_ptrace,
        libc::PTRACE_ATTACH,
        4_000_000,
        none,
        none
    );
    attempt!("kill another", libc::SYS_kill, 4_000_000, 0);
    attempt!("chroot", libc::SYS_chroot, c"/".as_ptr());
    attempt!("capset", libc::SYS_capset, none, none);
    attempt!("younger than all", libc::SYS_keyctl + 1_000_000);
    #[cfg(target_arch = "x86_64")]
    {
        attempt!("iopl", libc::SYS_iopl, 3);
        attempt!("ioperm", libc::SYS_ioperm, 0x80, 1, 1);
        attempt!("uselib", libc::SYS_uselib, c"/none".as_ptr());
        attempt!("_sysctl", libc::SYS__sysctl, none);
        attempt!(
            "x32 mount",
            0x4000_0000 + libc::SYS_mount,
            none,
            none,
            none,
            none,
            none
        );
    }
    results
}
