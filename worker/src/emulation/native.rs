//! What the processor runs by itself.

use std::fs;

use buildyard_model::Platform;

use super::architecture::Architecture;

/// Whether an architecture that runs here does so by the processor, not by an emulator that somebody registered.
pub(super) fn is_native(architecture: &Architecture) -> bool {
    let own: &[&str] = match std::env::consts::ARCH {
        "x86_64" => &["qemu-x86_64", "qemu-i386"],
        "aarch64" => &["qemu-aarch64", "qemu-arm"],
        "arm" => &["qemu-arm"],
        "riscv64" => &["qemu-riscv64"],
        "powerpc64" => &["qemu-ppc64le"],
        "s390x" => &["qemu-s390x"],
        "mips64" => &["qemu-mips64el"],
        "loongarch64" => &["qemu-loongarch64"],
        "x86" => &["qemu-i386"],
        _ => &[],
    };
    own.contains(&architecture.emulator) && !is_registered(architecture.emulator)
}

/// Whether the machine has a registration of that emulator (under any of the usual names).
fn is_registered(emulator: &str) -> bool {
    let entries = fs::read_dir("/proc/sys/fs/binfmt_misc")
        .into_iter()
        .flatten()
        .flatten();
    entries
        .filter_map(|entry| fs::read_to_string(entry.path()).ok())
        .any(|text| {
            let interpreter = text
                .lines()
                .find_map(|line| line.strip_prefix("interpreter "));
            let name = interpreter.and_then(|path| path.trim().rsplit('/').next());
            text.starts_with("enabled")
                && name.is_some_and(|name| name.trim_end_matches("-static") == emulator)
        })
}

/// The platforms of a native architecture, with the processor's levels as BuildKit names them.
pub(super) fn variants(architecture: &Architecture) -> Vec<Platform> {
    let mut platforms: Vec<Platform> = architecture
        .platforms
        .iter()
        .map(|(name, variant)| Platform::new("linux", name, variant))
        .collect();
    if architecture.emulator == "qemu-x86_64" {
        platforms.extend(
            (2..=level()).map(|level| Platform::new("linux", "amd64", &format!("v{level}"))),
        );
    }
    platforms
}

/// The x86-64 micro-architecture level (x86-64 psABI, "Micro-Architecture Levels").
#[cfg(target_arch = "x86_64")]
fn level() -> u32 {
    macro_rules! all { ($($feature:tt),*) => { $(std::is_x86_feature_detected!($feature))&&* }; }
    if !all!("cmpxchg16b", "popcnt", "sse3", "sse4.1", "sse4.2", "ssse3") {
        1
    } else if !all!(
        "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave"
    ) {
        2
    } else if !all!("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl") {
        3
    } else {
        4
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn level() -> u32 {
    1
}
