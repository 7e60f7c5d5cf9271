//! Layers at the edges of what the format, or a file system, can say.

use std::collections::BTreeMap;
use std::sync::Arc;

use buildyard_model::Digest;

use super::read::{What, expected, written};
use crate::erofs::{ErofsError, write_erofs};
use crate::testing::{Item, Put, flats, item, layer};
use crate::{Entry, Extent, FlatFiles, Kind, Time, Toc, random_flat_id};

/// Reads the image of one layer back and compares it with the layer.
fn check(items: &[Item]) {
    let (_dir, flats) = flats();
    let chain = [Arc::new(layer(items, &flats))];
    let (paths, _) = written(&chain, &[], &flats).read();
    assert_eq!(paths, expected(&chain, &flats));
}

fn entry(path: impl AsRef<[u8]>, kind: Kind) -> Entry {
    Entry {
        path: path.as_ref().to_vec(),
        kind,
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: Time::default(),
        xattrs: BTreeMap::new(),
    }
}

/// Offset, length and place in the file.
type Piece = (u64, u64, u64);

/// A layer with one file, whose extents are `(offset, length, at)` in a flat file of `flat` bytes.
fn scattered(size: u64, extents: &[Piece], flat: &[u8], flats: &FlatFiles) -> Arc<Toc> {
    let id = random_flat_id();
    let writer = flats.writer().unwrap();
    writer.append_raw(flat).unwrap();
    writer.commit(id).unwrap();
    let extents = extents.iter().map(|(offset, length, at)| Extent {
        flat: 0,
        offset: *offset,
        length: *length,
        at: *at,
    });
    let kind = Kind::File {
        size,
        content: Digest::of("any"),
        extents: extents.collect(),
        ino: 0,
    };
    Arc::new(Toc {
        entries: vec![entry("file", kind)],
        flats: vec![id],
        ..Toc::default()
    })
}

#[test]
fn names_that_sort_before_the_dots_are_found() {
    let names = ["!", "+x", "-", ".-", ".a", "...", "..a", "0", "a", "~"];
    let mut items: Vec<Item> = names.map(|name| item(name, Put::Fifo)).to_vec();
    items.push(item([0xff, 1], Put::Fifo));
    check(&items);
}

#[test]
fn directories_of_every_size_are_whole() {
    // Around the sizes at which names no longer fit behind the inode, and at which a further block begins.
    for count in (0..60).chain([300, 301]) {
        let items: Vec<Item> = (0..count)
            .map(|number| item(format!("d/{number:09}"), Put::Fifo))
            .collect();
        check(&items);
    }
}

#[test]
fn long_names_and_link_targets_are_whole() {
    for length in [1, 400, 447, 448, 449, 479, 480, 481, 511, 512, 513, 4095] {
        let mut link = item([b'n'; 255], Put::Symlink(vec![b't'; length]));
        check(std::slice::from_ref(&link));
        link.uid = 1 << 20;
        check(std::slice::from_ref(&link));
    }
}

#[test]
fn attributes_of_every_size_are_kept_and_equal_ones_stored_once() {
    let value = |byte: u8, length| vec![byte; length];
    let with = |path: &str, xattrs: &[(&[u8], Vec<u8>)]| {
        let mut item = item(path, Put::File(b"x".to_vec()));
        item.xattrs = xattrs
            .iter()
            .map(|(name, value)| (name.to_vec(), value.clone()))
            .collect();
        item
    };
    let big = value(b'b', 60_000);
    let items = [
        with(
            "a",
            &[(b"user.same", big.clone()), (b"trusted.x", value(1, 0))],
        ),
        with("b", &[(b"user.same", big.clone())]),
        with(
            "c",
            &[(b"user.same", big), (b"security.capability", value(2, 20))],
        ),
        with("d", &[(b"system.posix_acl_access", value(3, 28))]),
        with("e", &[(b"system.posix_acl_default", value(4, 28))]),
        with(
            "f",
            &[
                (b"user.one", value(5, 65_535)),
                (b"user.two", value(6, 65_535)),
            ],
        ),
    ];
    check(&items);
    let (_dir, flats) = flats();
    let image = written(&[Arc::new(layer(&items, &flats))], &[], &flats);
    assert!(image.bytes.len() < 200_000, "{}", image.bytes.len());
}

#[test]
fn inodes_of_many_links_and_huge_holes() {
    let (_dir, flats) = flats();
    let file = |size, ino| Kind::File {
        size,
        content: Digest::of("any"),
        extents: Vec::new(),
        ino,
    };
    let mut entries: Vec<Entry> = (0..70_000)
        .map(|number| entry(format!("{number:05}"), file(0, 1)))
        .collect();
    entries.push(entry("huge", file(5 << 40, 0)));
    let toc = Arc::new(Toc {
        entries,
        ..Toc::default()
    });
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    write_erofs(&[toc], &[], &flats, &path, &dir.path().join("side")).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let image = erofs_rs::backend::SliceImage::new(&bytes);
    let image = erofs_rs::EroFS::new(image).unwrap();
    let inode = |path: &str| {
        let mut entries = image.walk_dir("/").unwrap().map(Result::unwrap);
        entries
            .find(|entry| entry.dir_entry.file_name() == path.as_bytes())
            .unwrap()
            .inode
    };
    assert_eq!(inode("00007").id(), inode("69999").id());
    assert_eq!(inode("00007").nlink(), 70_000);
    let huge = image.open_inode_file(inode("huge")).unwrap();
    assert_eq!(huge.size(), 5 << 40);
    let mut end = [1; 4];
    huge.read_at(&mut end, (5 << 40) - 4).unwrap();
    assert_eq!(end, [0; 4]);
}

#[test]
fn bytes_that_lie_anyhow_are_copied_next_to_the_image() {
    let flat: Vec<u8> = (0..8192u32).map(|number| (number % 251) as u8).collect();
    let cases: [(u64, &[Piece], bool); 7] = [
        (100, &[(1024, 100, 0)], false),
        (3000, &[(512, 512, 0), (4096, 100, 1024)], true),
        (1124, &[(512, 512, 0), (4096, 100, 1024)], false),
        (
            3000,
            &[(512, 512, 0), (1031, 700, 1000), (3, 100, 2900)],
            true,
        ),
        (200, &[(7, 200, 0)], true),
        (1 << 22, &[(512, 512, 1 << 20), (0, 512, 3 << 20)], false),
        (1 << 23, &[(512, 512, 1 << 20), (0, 512, 3 << 20)], true),
    ];
    for (size, extents, copied) in cases {
        let (_dir, flats) = flats();
        let chain = [scattered(size, extents, &flat, &flats)];
        let image = written(&chain, &[], &flats);
        assert_eq!(image.image.side, copied, "{size} {extents:?}");
        assert_eq!(image.read().0, expected(&chain, &flats));
    }
}

#[test]
fn a_root_that_hides_what_is_below_says_so() {
    let (_dir, flats) = flats();
    let root = Toc {
        entries: vec![entry("", Kind::Directory { opaque: true })],
        ..Toc::default()
    };
    let below = [Arc::new(layer(&[item("x", Put::Fifo)], &flats))];
    let image = written(&[Arc::new(root)], &below, &flats);
    assert!(image.image.opaque_root);
    assert_eq!(
        image.read().0[&b""[..]].what,
        What::Directory { opaque: true }
    );
}

#[test]
fn what_the_format_cannot_say_is_refused() {
    let (_dir, flats) = flats();
    let dir = tempfile::tempdir().unwrap();
    let refuse = |entry: Entry| {
        let toc = Arc::new(Toc {
            entries: vec![entry],
            ..Toc::default()
        });
        let (image, side) = (dir.path().join("image"), dir.path().join("side"));
        let refused = write_erofs(&[toc], &[], &flats, &image, &side).unwrap_err();
        assert!(!image.exists(), "{refused}");
        refused
    };
    let fifo = |name: &[u8], value: &[u8]| {
        let mut entry = entry("x", Kind::Fifo);
        entry.xattrs.insert(name.to_vec(), value.to_vec());
        entry
    };
    let device = Kind::CharDevice {
        major: 5000,
        minor: 1,
    };
    let target = b"nowhere".to_vec();
    let is_unfit =
        |error: ErofsError| matches!(error, ErofsError::Unfit { path, .. } if path == "x");
    assert!(is_unfit(refuse(entry("x", device))));
    assert!(is_unfit(refuse(fifo(b"system.other", b""))));
    assert!(is_unfit(refuse(fifo(b"user.", b""))));
    assert!(is_unfit(refuse(fifo(b"user.x", &[0; 65_536]))));
    let link = refuse(entry("x", Kind::LinkBelow { target }));
    assert!(matches!(link, ErofsError::LinkTarget { target, .. } if target == "nowhere"));
}
