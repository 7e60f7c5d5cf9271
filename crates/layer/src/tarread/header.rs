//! One 512-byte header, and the extended headers that come before it.

use super::{Member, pax};

/// The fields of a plain header.
#[derive(Debug)]
pub(super) struct Head {
    /// The type flag as it is in the header.
    pub(super) flag: u8,
    pub(super) size: u64,
    member: Member,
}

/// What PAX records say about a sparse file.
#[derive(Debug, Default)]
pub(super) struct SparseHints {
    /// The length with holes; `Some` makes the member a sparse file.
    pub(super) size: Option<u64>,
    /// The map is at the start of the data (version 1.0).
    pub(super) in_data: bool,
    pub(super) chunks: Vec<(u64, u64)>,
    pub(super) name: Option<Vec<u8>>,
}

/// Parses a header and checks its checksum.
pub(super) fn parse(block: &[u8; 512]) -> Result<Head, &'static str> {
    let header = tar::Header::from_byte_slice(block);
    let sum = |signed: bool| -> i64 {
        let byte = |b: u8| {
            if signed {
                i64::from(b as i8)
            } else {
                i64::from(b)
            }
        };
        block[..148]
            .iter()
            .chain(&block[156..])
            .map(|b| byte(*b))
            .sum::<i64>()
            + 8 * i64::from(b' ')
    };
    let wanted = number(&block[148..156])?;
    // Some old programs summed the bytes as signed numbers.
    if wanted != sum(false) && wanted != sum(true) {
        return Err("a header's checksum is wrong");
    }
    let is_device = matches!(block[156], b'3' | b'4');
    let device = |bytes: &[u8]| {
        if is_device {
            small(bytes, "a device number")
        } else {
            Ok(0)
        }
    };
    let flag = block[156];
    let member = Member {
        path: header.path_bytes().into_owned(),
        link: header
            .link_name_bytes()
            .map(|l| l.into_owned())
            .unwrap_or_default(),
        flag,
        mode: (number(&block[100..108])? & 0o7777) as u32,
        uid: positive(&block[108..116], "an owner")?,
        gid: positive(&block[116..124], "a group")?,
        mtime: crate::Time {
            seconds: number(&block[136..148])?,
            nanos: 0,
        },
        major: device(&block[329..337])?,
        minor: device(&block[337..345])?,
        ..Member::default()
    };
    Ok(Head {
        flag,
        size: positive(&block[124..136], "a size")?,
        member,
    })
}

/// A numeric field: octal digits with blanks around them (none: 0), or big-endian two's complement (GNU base-256).
pub(super) fn number(field: &[u8]) -> Result<i64, &'static str> {
    if field[0] & 0x80 != 0 {
        return base256(field);
    }
    let digits = field
        .split(|b| *b == 0)
        .next()
        .unwrap_or_default()
        .trim_ascii();
    let digits = std::str::from_utf8(digits).map_err(|_| "a numeric field is not a number")?;
    if digits.is_empty() {
        return Ok(0);
    }
    i64::from_str_radix(digits, 8).map_err(|_| "a numeric field is not a number")
}

fn base256(field: &[u8]) -> Result<i64, &'static str> {
    // Bit 0x80 marks the form; bit 0x40 is the sign of the rest.
    let first = if field[0] & 0x40 != 0 {
        field[0]
    } else {
        field[0] & 0x7f
    };
    let start = if field[0] & 0x40 != 0 { -1i128 } else { 0 };
    let value = std::iter::once(first).chain(field[1..].iter().copied());
    let value = value.fold(start, |n, b| (n << 8) | i128::from(b));
    i64::try_from(value).map_err(|_| "a numeric field is out of range")
}

pub(super) fn positive(field: &[u8], what: &'static str) -> Result<u64, &'static str> {
    u64::try_from(number(field)?).map_err(|_| what)
}

fn small(field: &[u8], what: &'static str) -> Result<u32, &'static str> {
    u32::try_from(number(field)?).map_err(|_| what)
}

/// Extended headers seen before a member's own.
#[derive(Debug, Default)]
pub(super) struct Extended {
    long_path: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    pax: Option<Vec<u8>>,
}

impl Extended {
    pub(super) fn is_empty(&self) -> bool {
        self.long_path.is_none() && self.long_link.is_none() && self.pax.is_none()
    }

    pub(super) fn add(&mut self, flag: u8, bytes: Vec<u8>) -> Result<(), &'static str> {
        let slot = match flag {
            b'x' => &mut self.pax,
            b'L' => &mut self.long_path,
            _ => &mut self.long_link,
        };
        match slot.replace(bytes) {
            Some(_) => Err("two extended headers of one kind for one member"),
            None => Ok(()),
        }
    }

    /// The member with everything applied. PAX records win over GNU long names, as in Go's reader.
    pub(super) fn apply(self, head: Head) -> Result<(Member, SparseHints), &'static str> {
        let mut member = head.member;
        let mut hints = SparseHints::default();
        member.stored = head.size;
        if let Some(path) = self.long_path {
            member.path = until_nul(path);
        }
        if let Some(link) = self.long_link {
            member.link = until_nul(link);
        }
        if let Some(records) = self.pax {
            pax::apply(&records, &mut member, &mut hints)?;
        }
        if let Some(name) = hints.name.take() {
            member.path = name;
        }
        normalize_flag(&mut member);
        if hints.size.is_some() && member.flag != b'0' {
            return Err("something other than a regular file is sparse");
        }
        Ok((member, hints))
    }
}

/// All flags of regular files become `0` (a name with a slash at its end is an old archive's directory), and members
/// that are only a header have no data.
fn normalize_flag(member: &mut Member) {
    member.flag = match member.flag {
        0 if member.path.ends_with(b"/") => b'5',
        0 | b'0' | b'7' | b'S' => b'0',
        other => other,
    };
    if matches!(member.flag, b'1'..=b'6') {
        member.stored = 0;
    }
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_binary() {
        let check = |field: &[u8], wanted: Result<i64, ()>| {
            assert_eq!(number(field).map_err(|_| ()), wanted, "{field:?}");
        };
        check(b"0000644\0", Ok(0o644));
        check(b"  644 \0\0", Ok(0o644));
        check(b"\0\0\0\0\0\0\0\0", Ok(0));
        check(b"000008\0\0", Err(()));
        check(b"\x80\0\0\0\0\0\x01\0", Ok(256));
        check(b"\xff\xff\xff\xff\xff\xff\xff\xfe", Ok(-2));
        check(b"\x80\0\0\0\xff\0\0\0\0\0\0\0", Err(()));
    }
}
