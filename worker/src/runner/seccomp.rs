//! The system calls that a sandboxed step may make: what the default profile of Docker and containerd allows
//! (moby/profiles `seccomp/default.json`), resolved for one architecture and set of capabilities.
//!
//! The names that are always allowed are in `seccomp_allowed.txt`; runtimes skip names that the architecture lacks.

use serde_json::{Value, json};

const ALWAYS: &str = include_str!("seccomp_allowed.txt");

/// Allowed in addition by a capability.
const BY_CAPABILITY: &[(&str, &[&str])] = &[
    ("CAP_DAC_READ_SEARCH", &["open_by_handle_at"]),
    ("CAP_SYS_ADMIN", ADMIN),
    ("CAP_SYS_BOOT", &["reboot"]),
    ("CAP_SYS_CHROOT", &["chroot"]),
    (
        "CAP_SYS_MODULE",
        &["delete_module", "finit_module", "init_module"],
    ),
    ("CAP_SYS_PACCT", &["acct"]),
    (
        "CAP_SYS_PTRACE",
        &["kcmp", "pidfd_getfd", "process_madvise"],
    ),
    ("CAP_SYS_RAWIO", &["ioperm", "iopl"]),
    (
        "CAP_SYS_TIME",
        &["clock_settime", "clock_settime64", "settimeofday", "stime"],
    ),
    ("CAP_SYS_TTY_CONFIG", &["vhangup"]),
    (
        "CAP_SYS_NICE",
        &[
            "get_mempolicy",
            "mbind",
            "set_mempolicy",
            "set_mempolicy_home_node",
        ],
    ),
    ("CAP_SYSLOG", &["syslog"]),
    ("CAP_BPF", &["bpf"]),
];

const ADMIN: &[&str] = &[
    "bpf",
    "clone",
    "clone3",
    "fanotify_init",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "lookup_dcookie",
    "lsm_get_self_attr",
    "lsm_list_modules",
    "lsm_set_self_attr",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_tree",
    "perf_event_open",
    "quotactl",
    "quotactl_fd",
    "setdomainname",
    "sethostname",
    "setns",
    "syslog",
    "umount",
    "umount2",
    "unshare",
];

/// Values of `personality(2)` that endanger nothing: `PER_LINUX`, `PER_LINUX32`, both with `UNAME26`, and the question
/// for the present value.
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Flags of `clone(2)` that make namespaces: `CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET`.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;

/// Which socket families are allowed: all that there are but `AF_ALG` (38) and `AF_VSOCK` (40). They are named one by one: a
/// filter compares 64 bits and the kernel looks at 32, so "greater than 40" would let 38 pass with a high bit set. Programs of
/// 32-bit x86 have `socketcall` beside it, whose arguments no filter sees; without it those of the GNU C library have no network.
const FAMILIES: [(&str, u64); 7] = [
    ("SCMP_CMP_LT", 38),
    ("SCMP_CMP_EQ", 39),
    ("SCMP_CMP_EQ", 41),
    ("SCMP_CMP_EQ", 42),
    ("SCMP_CMP_EQ", 43),
    ("SCMP_CMP_EQ", 44),
    ("SCMP_CMP_EQ", 45),
];

/// The profile as the value of `linux.seccomp` in an OCI runtime configuration. `architecture` is
/// `std::env::consts::ARCH`'s name; `None` where there is no profile for it.
pub(super) fn profile(architecture: &str, capabilities: &[&str]) -> Option<Value> {
    let (architectures, own): (&[&str], &[&str]) = match architecture {
        "x86_64" => (&["X86_64", "X86", "X32"], &["arch_prctl", "modify_ldt"]),
        "aarch64" => (&["AARCH64", "ARM"], ARM),
        "arm" => (&["ARM"], ARM),
        "powerpc64" => (&["PPC64LE"], &["swapcontext", "sync_file_range2"]),
        "s390x" => (
            &["S390X", "S390"],
            &[
                "s390_pci_mmio_read",
                "s390_pci_mmio_write",
                "s390_runtime_instr",
            ],
        ),
        "riscv64" => (&["RISCV64"], &["riscv_flush_icache"]),
        _ => return None,
    };
    let mut allowed: Vec<&str> = ALWAYS
        .split_whitespace()
        .chain(own.iter().copied())
        .collect();
    let granted = BY_CAPABILITY
        .iter()
        .filter(|(capability, _)| capabilities.contains(capability));
    allowed.extend(granted.flat_map(|(_, names)| names.iter().copied()));
    if capabilities.contains(&"CAP_PERFMON") {
        allowed.push("perf_event_open");
    }
    allowed.sort_unstable();
    allowed.dedup();

    let mut rules = vec![json!({ "names": allowed, "action": "SCMP_ACT_ALLOW" })];
    rules.extend(FAMILIES.map(|(op, family)| one("socket", 0, family, None, op)));
    rules.extend(PERSONALITIES.map(|value| one("personality", 0, value, None, "SCMP_CMP_EQ")));
    if !capabilities.contains(&"CAP_SYS_ADMIN") {
        let flags = if architecture == "s390x" { 1 } else { 0 };
        rules.push(one(
            "clone",
            flags,
            CLONE_NAMESPACES,
            Some(0),
            "SCMP_CMP_MASKED_EQ",
        ));
        // The flags of clone3 are in memory, out of a filter's sight: ENOSYS makes the C library fall back to clone.
        rules.push(
            json!({ "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSYS }),
        );
    }
    Some(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": libc::EPERM,
        "architectures": architectures.iter().map(|name| format!("SCMP_ARCH_{name}")).collect::<Vec<_>>(),
        "syscalls": rules,
    }))
}

const ARM: &[&str] = &[
    "arm_fadvise64_64",
    "arm_sync_file_range",
    "breakpoint",
    "cacheflush",
    "set_tls",
    "sync_file_range2",
];

fn one(name: &str, index: u32, value: u64, value_two: Option<u64>, op: &str) -> Value {
    let mut condition = json!({ "index": index, "value": value, "op": op });
    if let Some(value_two) = value_two {
        condition["valueTwo"] = value_two.into();
    }
    json!({ "names": [name], "action": "SCMP_ACT_ALLOW", "args": [condition] })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(profile: &Value) -> Vec<&str> {
        profile["syscalls"][0]["names"]
            .as_array()
            .unwrap()
            .iter()
            .map(|name| name.as_str().unwrap())
            .collect()
    }

    #[test]
    fn capabilities_decide() {
        let plain = profile("x86_64", &["CAP_SYS_CHROOT"]).unwrap();
        assert!(allowed(&plain).contains(&"chroot"));
        assert!(allowed(&plain).contains(&"arch_prctl"));
        assert!(!allowed(&plain).contains(&"mount"));
        let admin = profile("x86_64", &["CAP_SYS_ADMIN"]).unwrap();
        assert!(allowed(&admin).contains(&"mount"));
        assert!(allowed(&admin).contains(&"clone3"));
    }

    #[test]
    fn it_is_what_oci_calls_a_profile() {
        for architecture in ["x86_64", "aarch64", "arm", "powerpc64", "s390x", "riscv64"] {
            let profile = profile(architecture, &[]).unwrap();
            serde_json::from_value::<oci_spec::runtime::LinuxSeccomp>(profile).unwrap();
        }
        assert_eq!(profile("z80", &[]), None);
    }
}
