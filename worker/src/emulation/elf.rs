//! The smallest programs: an ELF header, one segment, a few instructions (System V ABI, "Object Files").

use std::io::{self, Read};

use super::architecture::Architecture;

/// Where the program is loaded.
const ADDRESS: u64 = 0x40_0000;

/// A program that ends with exit code 42.
pub(super) fn program(architecture: &Architecture) -> Vec<u8> {
    let mut bytes = header(architecture);
    let length = bytes.len() + if architecture.wide { 56 } else { 32 } + architecture.exit.len();
    let mut out = Writer {
        bytes: std::mem::take(&mut bytes),
        big: architecture.big,
        wide: architecture.wide,
    };
    const LOAD: u32 = 1;
    const READ_AND_EXECUTE: u32 = 5;
    out.word(LOAD);
    if architecture.wide {
        out.word(READ_AND_EXECUTE);
    }
    out.address(0); // offset in the file
    out.address(ADDRESS);
    out.address(ADDRESS);
    out.address(length as u64); // in the file
    out.address(length as u64); // in memory
    if !architecture.wide {
        out.word(READ_AND_EXECUTE);
    }
    out.address(0x1_0000); // alignment: the largest page of any of the architectures
    out.bytes.extend_from_slice(architecture.exit);
    out.bytes
}

/// The ELF header of such a program.
pub(super) fn header(architecture: &Architecture) -> Vec<u8> {
    let (size, segment) = if architecture.wide {
        (64, 56)
    } else {
        (52, 32)
    };
    let class = if architecture.wide { 2 } else { 1 };
    let order = if architecture.big { 2 } else { 1 };
    let mut out = Writer {
        bytes: vec![
            0x7f, b'E', b'L', b'F', class, order, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ],
        big: architecture.big,
        wide: architecture.wide,
    };
    out.half(2); // executable
    out.half(architecture.machine);
    out.word(1); // version
    out.address(ADDRESS + size + segment); // entry point
    out.address(size); // program headers
    out.address(0); // section headers
    out.word(architecture.flags);
    out.half(size as u16);
    out.half(segment as u16);
    out.half(1); // program headers
    out.half(0);
    out.half(0); // section headers
    out.half(0);
    out.bytes
}

struct Writer {
    bytes: Vec<u8>,
    big: bool,
    wide: bool,
}

impl Writer {
    fn half(&mut self, value: u16) {
        self.bytes.extend(if self.big {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        });
    }

    fn word(&mut self, value: u32) {
        self.bytes.extend(if self.big {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        });
    }

    fn address(&mut self, value: u64) {
        if !self.wide {
            // All addresses and lengths here are small.
            return self.word(value as u32);
        }
        self.bytes.extend(if self.big {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        });
    }
}

/// Whether a little- or big-endian ELF program has no interpreter segment (`PT_INTERP`).
pub(super) fn is_static(file: &mut impl Read) -> io::Result<bool> {
    let mut bytes = Vec::new();
    file.take(4096).read_to_end(&mut bytes)?;
    Ok(segments(&bytes).is_some_and(|kinds| !kinds.contains(&3)))
}

/// The types of a program's segments, if it is an ELF program whose table is at its beginning.
fn segments(bytes: &[u8]) -> Option<Vec<u32>> {
    let wide = *bytes.get(4)? == 2;
    let big = *bytes.get(5)? == 2;
    if !bytes.starts_with(b"\x7fELF") {
        return None;
    }
    let number = |at: usize, length: usize| -> Option<u64> {
        let field = bytes.get(at..at.checked_add(length)?)?;
        let digits: Box<dyn Iterator<Item = &u8>> = if big {
            Box::new(field.iter())
        } else {
            Box::new(field.iter().rev())
        };
        Some(digits.fold(0, |value, byte| (value << 8) | u64::from(*byte)))
    };
    let (table, size, count) = if wide {
        (number(32, 8)?, number(54, 2)?, number(56, 2)?)
    } else {
        (number(28, 4)?, number(42, 2)?, number(44, 2)?)
    };
    let kind = |index: u64| {
        let at = usize::try_from(table.checked_add(index.checked_mul(size)?)?).ok()?;
        number(at, 4).map(|kind| kind as u32)
    };
    (0..count).map(kind).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulation::architecture::ARCHITECTURES;

    #[test]
    fn programs_have_the_sizes_their_headers_say() {
        for architecture in ARCHITECTURES {
            let program = program(architecture);
            let expected =
                if architecture.wide { 64 + 56 } else { 52 + 32 } + architecture.exit.len();
            assert_eq!(program.len(), expected, "{}", architecture.emulator);
            assert_eq!(
                segments(&program),
                Some(vec![1]),
                "{}",
                architecture.emulator
            );
        }
    }

    #[test]
    fn programs_with_an_interpreter_are_told_from_static_ones() {
        let check = |path: &str, expected: bool| {
            assert_eq!(
                is_static(&mut std::fs::File::open(path).unwrap()).unwrap(),
                expected,
                "{path}"
            );
        };
        check("/bin/busybox", true);
        check("/bin/bash", false);
        check("/etc/passwd", false);
    }
}
