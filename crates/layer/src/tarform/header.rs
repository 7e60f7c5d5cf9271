//! One member's headers: a USTAR block, with a PAX block before it where the USTAR block cannot say everything.

use std::collections::BTreeMap;

use crate::Entry;
use crate::tarread::push_record;

/// What goes into a member's headers.
#[derive(Debug, Default)]
pub(super) struct Header {
    flag: u8,
    path: Vec<u8>,
    link: Vec<u8>,
    mode: u32,
    uid: u32,
    gid: u32,
    seconds: i64,
    size: u64,
    device: (u32, u32),
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Header {
    /// The entry's path and metadata.
    pub(super) fn of(entry: &Entry, flag: u8) -> Self {
        Self {
            flag,
            path: entry.path.clone(),
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            seconds: entry.mtime.seconds,
            xattrs: entry.xattrs.clone(),
            ..Self::default()
        }
    }

    /// An empty file without metadata.
    pub(super) fn marker(path: Vec<u8>) -> Self {
        Self {
            flag: b'0',
            path,
            ..Self::default()
        }
    }

    pub(super) fn path(self, path: Vec<u8>) -> Self {
        Self { path, ..self }
    }

    pub(super) fn link(self, target: &[u8]) -> Self {
        Self {
            link: target.to_vec(),
            ..self
        }
    }

    pub(super) fn device(self, major: u32, minor: u32) -> Self {
        Self {
            device: (major, minor),
            ..self
        }
    }

    pub(super) fn size(self, size: u64) -> Self {
        Self { size, ..self }
    }
}

/// Appends the header's blocks to `out`.
pub(super) fn write_header(header: &Header, out: &mut Vec<u8>) {
    let mut pax = Pax::default();
    let path = pax.text(b"path", &header.path);
    let link = pax.text(b"linkpath", &header.link);
    let fields = Fields {
        mode: header.mode.into(),
        uid: pax.number(b"uid", header.uid.into(), 7),
        gid: pax.number(b"gid", header.gid.into(), 7),
        size: pax.number(b"size", header.size.into(), 11),
        seconds: pax.number(b"mtime", header.seconds.into(), 11),
        device: header.device,
    };
    let xattr = |(name, value): (&Vec<u8>, &Vec<u8>)| {
        ([b"SCHILY.xattr.", &name[..]].concat(), value.clone())
    };
    pax.records.extend(header.xattrs.iter().map(xattr));
    if !pax.records.is_empty() {
        let records = pax.into_bytes();
        let size = records.len() as u64;
        out.extend(block(
            b'x',
            b"pax",
            b"",
            &Fields {
                size,
                ..Fields::default()
            },
        ));
        out.extend_from_slice(&records);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.extend(block(header.flag, &path, &link, &fields));
}

/// Records in the order of their keys.
#[derive(Default)]
struct Pax {
    records: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Pax {
    /// The text for the header's field of 100 bytes; what doesn't fit, or isn't ASCII, becomes a record too.
    fn text(&mut self, key: &[u8], value: &[u8]) -> Vec<u8> {
        if value.len() <= 100 && value.is_ascii() {
            return value.to_vec();
        }
        self.records.insert(key.to_vec(), value.to_vec());
        value
            .iter()
            .copied()
            .filter(u8::is_ascii)
            .take(100)
            .collect()
    }

    /// The number for a header's field of `digits` octal digits, or zero beside a record.
    fn number(&mut self, key: &[u8], value: i128, digits: u32) -> u64 {
        match u64::try_from(value) {
            Ok(fits) if fits < 1 << (3 * digits) => fits,
            _ => {
                self.records
                    .insert(key.to_vec(), value.to_string().into_bytes());
                0
            }
        }
    }

    fn into_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.records
            .iter()
            .for_each(|(key, value)| push_record(&mut bytes, key, value));
        bytes
    }
}

#[derive(Default)]
struct Fields {
    mode: u64,
    uid: u64,
    gid: u64,
    size: u64,
    seconds: u64,
    device: (u32, u32),
}

/// A USTAR block (POSIX.1-2017 `pax`, "ustar Interchange Format").
fn block(flag: u8, path: &[u8], link: &[u8], fields: &Fields) -> [u8; 512] {
    let mut block = [0; 512];
    block[..path.len()].copy_from_slice(path);
    octal(&mut block[100..108], fields.mode);
    octal(&mut block[108..116], fields.uid);
    octal(&mut block[116..124], fields.gid);
    octal(&mut block[124..136], fields.size);
    octal(&mut block[136..148], fields.seconds);
    block[148..156].fill(b' ');
    block[156] = flag;
    block[157..157 + link.len()].copy_from_slice(link);
    block[257..265].copy_from_slice(b"ustar\x0000");
    octal(&mut block[329..337], fields.device.0.into());
    octal(&mut block[337..345], fields.device.1.into());
    let sum = block.iter().map(|b| u64::from(*b)).sum();
    octal(&mut block[148..155], sum);
    block
}

/// Octal digits with leading zeros and a NUL behind them. Device numbers have at most 24 bits, and the others were
/// checked to fit.
fn octal(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    let text = format!("{value:0digits$o}");
    field[..digits].copy_from_slice(&text.as_bytes()[text.len() - digits..]);
}
