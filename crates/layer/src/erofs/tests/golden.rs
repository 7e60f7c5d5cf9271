//! Images held byte for byte: what a kernel mounted yesterday is what it mounts today.

use std::fmt::Write;
use std::sync::Arc;

use buildyard_model::{Digest, FlatId};

use super::read::written;
use crate::testing::flats;
use crate::{Entry, Extent, Kind, Time, Toc};

fn entry(path: &str, kind: Kind) -> Entry {
    Entry {
        path: path.into(),
        kind,
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: Time {
            seconds: 1_700_000_000,
            nanos: 0,
        },
        xattrs: Default::default(),
    }
}

/// The image in lines of 16 bytes, those of zeros left out.
fn dump(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (number, line) in bytes.chunks(16).enumerate() {
        if line.iter().all(|byte| *byte == 0) {
            continue;
        }
        let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let shown: String = line
            .iter()
            .map(|byte| match byte {
                0x20..0x7f => char::from(*byte),
                _ => '.',
            })
            .collect();
        writeln!(text, "{:06x}  {}  {shown}", number * 16, hex.join(" ")).unwrap();
    }
    text
}

#[test]
fn a_small_layer() {
    let (_dir, flats) = flats();
    let flat = FlatId::from_bytes([0xab; 32]);
    let writer = flats.writer().unwrap();
    writer.append_raw(&[b'x'; 1024]).unwrap();
    writer.commit(flat).unwrap();
    let file = |ino| Kind::File {
        size: 700,
        content: Digest::of("any"),
        extents: vec![Extent {
            flat: 0,
            offset: 0,
            length: 700,
            at: 0,
        }],
        ino,
    };
    let mut owned = entry("etc/owned", file(0));
    (owned.uid, owned.mtime.nanos) = (100_000, 7);
    owned.xattrs.insert(b"user.a".to_vec(), b"b".to_vec());
    let target = b"../target".to_vec();
    let mut gone = entry("gone", Kind::Whiteout);
    (gone.mode, gone.mtime) = (0, Time::default());
    let toc = Toc {
        entries: vec![
            entry(
                "dev",
                Kind::CharDevice {
                    major: 8,
                    minor: 300,
                },
            ),
            entry("etc", Kind::Directory { opaque: true }),
            entry("etc/link", Kind::Symlink { target }),
            entry("etc/one", file(1)),
            owned,
            entry("etc/two", file(1)),
            gone,
        ],
        flats: vec![flat],
        ..Toc::default()
    };
    toc.check().unwrap();
    let below = Toc {
        entries: vec![entry("etc", Kind::Directory { opaque: false })],
        ..Toc::default()
    };
    let image = written(&[Arc::new(toc)], &[Arc::new(below)], &flats);
    assert!(image.image.independent && !image.image.opaque_root && !image.image.side);
    insta::assert_snapshot!(dump(&image.bytes));
}

#[test]
fn an_empty_layer() {
    let (_dir, flats) = flats();
    let image = written(&[Arc::default()], &[], &flats);
    assert!(image.image.flats.is_empty());
    insta::assert_snapshot!(dump(&image.bytes));
}
