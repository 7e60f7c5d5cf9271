//! The numbers of system calls by name, per architecture of a profile.

/// A set of numbers that programs may use on a machine.
pub(super) struct Abi {
    /// As profiles call it.
    pub(super) name: &'static str,
    /// As the kernel calls it to a filter (`AUDIT_ARCH_…`).
    pub(super) audit: u32,
    /// Where its numbers begin.
    pub(super) first: u32,
    /// The number of a name, if it has that call.
    pub(super) number: fn(&str) -> Option<u32>,
}

/// All that are known. X32 shares the kernel's name of X86_64 and is told apart by a bit of the number.
pub(super) const ABIS: [Abi; 5] = [
    Abi {
        name: "SCMP_ARCH_X86_64",
        audit: 0xc000_003e,
        first: 0,
        number: x86_64,
    },
    Abi {
        name: "SCMP_ARCH_X32",
        audit: 0xc000_003e,
        first: X32_BIT,
        number: x32,
    },
    Abi {
        name: "SCMP_ARCH_X86",
        audit: 0x4000_0003,
        first: 0,
        number: x86,
    },
    Abi {
        name: "SCMP_ARCH_AARCH64",
        audit: 0xc000_00b7,
        first: 0,
        number: aarch64,
    },
    Abi {
        name: "SCMP_ARCH_ARM",
        audit: 0x4000_0028,
        first: 0,
        number: arm,
    },
];

const X32_BIT: u32 = 0x4000_0000;

/// Calls whose structures in memory differ between the two: x32 has numbers of its own for them, from 512 on.
const X32_OWN: [&str; 36] = [
    "rt_sigaction",
    "rt_sigreturn",
    "ioctl",
    "readv",
    "writev",
    "recvfrom",
    "sendmsg",
    "recvmsg",
    "execve",
    "ptrace",
    "rt_sigpending",
    "rt_sigtimedwait",
    "rt_sigqueueinfo",
    "sigaltstack",
    "timer_create",
    "mq_notify",
    "kexec_load",
    "waitid",
    "set_robust_list",
    "get_robust_list",
    "vmsplice",
    "move_pages",
    "preadv",
    "pwritev",
    "rt_tgsigqueueinfo",
    "recvmmsg",
    "sendmmsg",
    "process_vm_readv",
    "process_vm_writev",
    "setsockopt",
    "getsockopt",
    "io_setup",
    "io_submit",
    "execveat",
    "preadv2",
    "pwritev2",
];

/// Calls of x86_64 that x32 lacks.
const X32_LACKS: [&str; 11] = [
    "_sysctl",
    "create_module",
    "epoll_ctl_old",
    "epoll_wait_old",
    "get_kernel_syms",
    "get_thread_area",
    "nfsservctl",
    "query_module",
    "set_thread_area",
    "uselib",
    "vserver",
];

/// Calls that 32-bit ARM keeps apart from the others (`__ARM_NR_…`).
const ARM_OWN: [&str; 6] = [
    "breakpoint",
    "cacheflush",
    "usr26",
    "usr32",
    "set_tls",
    "get_tls",
];
const ARM_OWN_FIRST: u32 = 0x0f_0001;

fn x86_64(name: &str) -> Option<u32> {
    let known: syscalls::x86_64::Sysno = name.parse().ok()?;
    u32::try_from(known.id()).ok()
}

fn x32(name: &str) -> Option<u32> {
    if X32_LACKS.contains(&name) {
        return None;
    }
    let own = (512..).zip(X32_OWN).find(|(_, own)| *own == name);
    let number = match own {
        Some((number, _)) => number,
        None => x86_64(name)?,
    };
    Some(X32_BIT + number)
}

fn x86(name: &str) -> Option<u32> {
    let known: syscalls::x86::Sysno = name.parse().ok()?;
    u32::try_from(known.id()).ok()
}

fn aarch64(name: &str) -> Option<u32> {
    // The kernel's headers and profiles call it so.
    let name = if name == "newfstatat" {
        "fstatat"
    } else {
        name
    };
    let known: syscalls::aarch64::Sysno = name.parse().ok()?;
    u32::try_from(known.id()).ok()
}

fn arm(name: &str) -> Option<u32> {
    let own = (ARM_OWN_FIRST..).zip(ARM_OWN).find(|(_, own)| *own == name);
    if let Some((number, _)) = own {
        return Some(number);
    }
    let known: syscalls::arm::Sysno = name.parse().ok()?;
    u32::try_from(known.id()).ok()
}
