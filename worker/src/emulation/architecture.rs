//! The architectures of Linux that QEMU emulates: how their programs are recognised, and the smallest of them.
//!
//! `binfmt_misc` (kernel: `Documentation/admin-guide/binfmt-misc.rst`) compares a program's first bytes with a magic
//! under a mask. The first 20 bytes of an ELF file are (System V ABI, "ELF Header"):
//!
//! ```text
//!  0  7f 'E' 'L' 'F'
//!  4  class: 1 = 32 bits, 2 = 64 bits
//!  5  byte order: 1 = little, 2 = big
//!  6  version: 1
//!  7  operating system ABI: not compared (System V and GNU both occur)
//!  8  ABI version and padding: zeros
//! 16  type: 2 = executable, 3 = position-independent, so its lowest bit is not compared
//! 18  machine
//! ```

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::elf;

/// An architecture.
#[derive(Debug)]
pub(super) struct Architecture {
    /// Its platforms: GOARCH's name and variant.
    pub(super) platforms: &'static [(&'static str, &'static str)],
    /// QEMU's name for the emulator.
    pub(super) emulator: &'static str,
    /// `e_machine`.
    pub(super) machine: u16,
    /// 64 bits, else 32.
    pub(super) wide: bool,
    /// Big-endian.
    pub(super) big: bool,
    /// `e_flags` that its programs carry.
    pub(super) flags: u32,
    /// Instructions for `exit(42)`, in memory order.
    pub(super) exit: &'static [u8],
}

/// All of them.
pub(super) const ARCHITECTURES: &[Architecture] = &[
    Architecture {
        platforms: &[("amd64", "")],
        emulator: "qemu-x86_64",
        machine: 62,
        wide: true,
        big: false,
        flags: 0,
        // mov edi, 42; mov eax, 60; syscall
        exit: &[0xbf, 42, 0, 0, 0, 0xb8, 60, 0, 0, 0, 0x0f, 0x05],
    },
    Architecture {
        platforms: &[("386", "")],
        emulator: "qemu-i386",
        machine: 3,
        wide: false,
        big: false,
        flags: 0,
        // mov ebx, 42; mov eax, 1; int 0x80
        exit: &[0xbb, 42, 0, 0, 0, 0xb8, 1, 0, 0, 0, 0xcd, 0x80],
    },
    Architecture {
        platforms: &[("arm64", "")],
        emulator: "qemu-aarch64",
        machine: 183,
        wide: true,
        big: false,
        flags: 0,
        // mov x0, #42; mov x8, #93; svc #0
        exit: &[
            0x40, 0x05, 0x80, 0xd2, 0xa8, 0x0b, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4,
        ],
    },
    Architecture {
        platforms: &[("arm", "v7"), ("arm", "v6")],
        emulator: "qemu-arm",
        machine: 40,
        wide: false,
        big: false,
        // EABI version 5.
        flags: 0x0500_0000,
        // mov r0, #42; mov r7, #1; svc 0
        exit: &[
            42, 0x00, 0xa0, 0xe3, 0x01, 0x70, 0xa0, 0xe3, 0x00, 0x00, 0x00, 0xef,
        ],
    },
    Architecture {
        platforms: &[("riscv64", "")],
        emulator: "qemu-riscv64",
        machine: 243,
        wide: true,
        big: false,
        flags: 0,
        // li a0, 42; li a7, 93; ecall
        exit: &[
            0x13, 0x05, 0xa0, 0x02, 0x93, 0x08, 0xd0, 0x05, 0x73, 0x00, 0x00, 0x00,
        ],
    },
    Architecture {
        platforms: &[("ppc64le", "")],
        emulator: "qemu-ppc64le",
        machine: 21,
        wide: true,
        big: false,
        // ELF ABI version 2: the entry point is code, no descriptor.
        flags: 2,
        // li r0, 1; li r3, 42; sc
        exit: &[
            0x01, 0x00, 0x00, 0x38, 42, 0x00, 0x60, 0x38, 0x02, 0x00, 0x00, 0x44,
        ],
    },
    Architecture {
        platforms: &[("s390x", "")],
        emulator: "qemu-s390x",
        machine: 22,
        wide: true,
        big: true,
        flags: 0,
        // lghi %r2, 42; svc 1
        exit: &[0xa7, 0x29, 0x00, 42, 0x0a, 0x01],
    },
    Architecture {
        platforms: &[("mips64le", "")],
        emulator: "qemu-mips64el",
        machine: 8,
        wide: true,
        big: false,
        // MIPS64 release 2.
        flags: 0x8000_0000,
        // li $a0, 42; li $v0, 5058; syscall
        exit: &[
            42, 0x00, 0x04, 0x24, 0xc2, 0x13, 0x02, 0x24, 0x0c, 0x00, 0x00, 0x00,
        ],
    },
    Architecture {
        platforms: &[("loong64", "")],
        emulator: "qemu-loongarch64",
        machine: 258,
        wide: true,
        big: false,
        // Double-precision floating point registers.
        flags: 3,
        // addi.w $a0, $zero, 42; addi.w $a7, $zero, 93; syscall 0
        exit: &[
            0x04, 0xa8, 0x80, 0x02, 0x0b, 0x74, 0x81, 0x02, 0x00, 0x00, 0x2b, 0x00,
        ],
    },
];

impl Architecture {
    /// The bytes its programs begin with.
    pub(super) fn magic(&self) -> [u8; 20] {
        let mut magic = [0; 20];
        magic.copy_from_slice(&elf::header(self)[..20]);
        magic
    }

    /// Which bits of them count.
    pub(super) fn mask(&self) -> [u8; 20] {
        let mut mask = [0xff; 20];
        mask[7] = 0;
        mask[if self.big { 17 } else { 16 }] = 0xfe;
        mask
    }

    /// What to write into `binfmt_misc`'s `register` so that `interpreter` runs its programs: opened by the kernel for
    /// the emulator (`O`), with the program's credentials (`C`), the emulator opened now (`F`), the program's own first
    /// argument kept (`P`, which QEMU 6 and newer understand).
    pub(super) fn registration(&self, interpreter: &Path) -> Vec<u8> {
        let hex = |bytes: [u8; 20]| bytes.map(|byte| format!("\\x{byte:02x}")).concat();
        let mut line = format!(
            ":{}:M::{}:{}:",
            self.entry_name(),
            hex(self.magic()),
            hex(self.mask())
        )
        .into_bytes();
        line.extend_from_slice(interpreter.as_os_str().as_bytes());
        line.extend_from_slice(b":OCFP");
        line
    }

    /// The registration's name.
    pub(super) fn entry_name(&self) -> String {
        format!("buildyard-{}", self.emulator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registration_of_arm64_is_as_qemu_writes_it() {
        let arm64 = ARCHITECTURES
            .iter()
            .find(|architecture| architecture.emulator == "qemu-aarch64")
            .unwrap();
        let line = String::from_utf8(arm64.registration(Path::new("/usr/bin/qemu-aarch64-static")))
            .unwrap();
        let expected = concat!(
            r":buildyard-qemu-aarch64:M:",
            r":\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00",
            r":\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff",
            r":/usr/bin/qemu-aarch64-static:OCFP",
        );
        assert_eq!(line, expected);
    }

    #[test]
    fn big_endian_types_are_masked_in_their_last_byte() {
        let s390x = ARCHITECTURES
            .iter()
            .find(|architecture| architecture.big)
            .unwrap();
        assert_eq!(s390x.magic()[16..], [0, 2, 0, 22]);
        assert_eq!(s390x.mask()[16..], [0xff, 0xfe, 0xff, 0xff]);
    }
}
