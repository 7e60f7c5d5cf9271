use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use proptest::prelude::*;

use super::*;
use crate::testing::{
    Item, Overlay, Put, any_items, at, content, flats, item, layer, paths, scan, without_flats,
};
use crate::{FlatFiles, Time};

/// A file capability (`cap_net_raw+ep`) as the kernel takes it.
const CAPABILITY: &[u8] = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

fn place(dir: &Path, path: &[u8]) -> std::path::PathBuf {
    dir.join(std::ffi::OsStr::from_bytes(path))
}

#[test]
fn everything_is_there_as_the_kernel_has_it() {
    let (_dir, flats) = flats();
    let mut su = item("bin/su", Put::File(b"#!".to_vec()));
    (su.mode, su.uid, su.mtime) = (
        0o6755,
        1000,
        Time {
            seconds: 1234,
            nanos: 567,
        },
    );
    su.xattrs
        .insert(b"security.capability".to_vec(), CAPABILITY.to_vec());
    su.xattrs.insert(b"user.x".to_vec(), b"y".to_vec());
    let mut symlink = item("sym", Put::Symlink(b"/nowhere/\xff".to_vec()));
    (symlink.uid, symlink.mtime) = (
        7,
        Time {
            seconds: -5,
            nanos: 0,
        },
    );
    let long = [b"l/".as_slice(), &[0xfe; 255]].concat();
    let items = [
        item("bin", Put::Directory),
        su,
        item("bin/su2", Put::Link(b"bin/su".to_vec())),
        symlink,
        item("dev/zero", Put::Device(1, 5)),
        item("fifo", Put::Fifo),
        item("gone", Put::Whiteout),
        item("opaque", Put::Opaque),
        item("sparse", Put::File([vec![0; 8 << 20], vec![1]].concat())),
        item(&long, Put::File(b"long".to_vec())),
    ];
    let target = tempfile::tempdir().unwrap();
    unpack(&layer(&items, &flats), &flats, target.path()).unwrap();
    let stat = |path: &[u8]| fs::symlink_metadata(place(target.path(), path)).unwrap();
    let su = stat(b"bin/su");
    assert_eq!(
        (su.mode() & 0o7777, su.uid(), su.gid(), su.nlink()),
        (0o6755, 1000, 500, 2)
    );
    assert_eq!((su.mtime(), su.mtime_nsec()), (1234, 567));
    assert_eq!(stat(b"bin/su2").ino(), su.ino());
    let mut value = [0; 100];
    let file = place(target.path(), b"bin/su2");
    let length = rustix::fs::lgetxattr(&file, "security.capability", &mut value[..]).unwrap();
    assert_eq!(&value[..length], CAPABILITY);
    assert_eq!(
        fs::read_link(place(target.path(), b"sym"))
            .unwrap()
            .as_os_str()
            .as_bytes(),
        b"/nowhere/\xff"
    );
    assert_eq!((stat(b"sym").uid(), stat(b"sym").mtime()), (7, -5));
    assert_eq!(
        (stat(b"dev/zero").rdev(), stat(b"dev").mode() & 0o7777),
        (makedev(1, 5), 0o755)
    );
    assert!(stat(b"fifo").file_type().is_fifo());
    assert!(stat(b"gone").file_type().is_char_device() && stat(b"gone").rdev() == 0);
    let length = rustix::fs::lgetxattr(
        place(target.path(), b"opaque"),
        "trusted.overlay.opaque",
        &mut value[..],
    );
    assert_eq!(&value[..length.unwrap()], b"y");
    assert_eq!(
        (stat(b"sparse").len(), stat(b"sparse").blocks() < 256),
        ((8 << 20) + 1, true)
    );
    assert_eq!(fs::read(place(target.path(), &long)).unwrap(), b"long");
}

/// Keeps what any directory can hold: no whiteouts, times of the file system's range, attributes on files only.
fn ordinary(mut items: Vec<Item>) -> Vec<Item> {
    items.retain(|i| !matches!(i.put, Put::Whiteout | Put::Opaque | Put::Link(_)));
    for item in &mut items {
        item.mtime.seconds = item.mtime.seconds.max(-2_000_000_000);
        item.uid = item.uid.min(u32::MAX - 1);
        match item.put {
            Put::File(_) | Put::Directory => {}
            Put::Symlink(_) => (item.mode, item.xattrs) = (0o777, Default::default()),
            Put::Device(..) | Put::Fifo => item.xattrs.clear(),
            _ => {}
        }
    }
    items
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn an_unpacked_layer_is_captured_as_the_same_layer(items in any_items()) {
        let (_dir, flats) = flats();
        let wanted = layer(&ordinary(items), &flats);
        let target = tempfile::tempdir().unwrap();
        unpack(&wanted, &flats, target.path()).unwrap();
        let mut got = scan(target.path(), &flats);
        // Directories that the layer doesn't list had to be made.
        let listed: std::collections::HashSet<_> = wanted.entries.iter().map(|e| &e.path).collect();
        got.entries.retain(|e| listed.contains(&e.path));
        // A directory whose only entry was replaced may be opaque in the layer, which shows only over another.
        let mut wanted = without_flats(&wanted);
        for entry in &mut wanted.entries {
            if let Kind::Directory { opaque } = &mut entry.kind {
                *opaque = false;
            }
        }
        prop_assert_eq!(without_flats(&got), wanted);
    }
}

/// What is at each path, without what only single layers have.
fn shape(toc: &Toc) -> Vec<(Vec<u8>, Kind)> {
    let bare = |kind: &Kind| match kind {
        Kind::Directory { .. } => Kind::Directory { opaque: false },
        Kind::File { size, content, .. } => Kind::File {
            size: *size,
            content: *content,
            extents: Vec::new(),
            ino: 0,
        },
        other => other.clone(),
    };
    let entries = toc.entries.iter().filter(|e| !e.path.is_empty());
    entries.map(|e| (e.path.clone(), bare(&e.kind))).collect()
}

/// A layer like [`ordinary`], with opaque directories, and with whiteouts of what is below or in a directory made anew: of
/// others, overlayfs would list the names. Where they are is known only afterwards, as paths go through symlinks.
fn ordinary_change(items: Vec<Item>, below: &crate::Tree, flats: &FlatFiles) -> Toc {
    let (marks, others): (Vec<_>, Vec<_>) = items
        .into_iter()
        .partition(|i| matches!(i.put, Put::Whiteout | Put::Opaque));
    let marks = marks.iter().map(|i| item(&i.path, i.put.clone()));
    let items: Vec<Item> = ordinary(others).into_iter().chain(marks).collect();
    let mut toc = layer(&items, flats);
    let anew = |entry: &Entry| matches!(entry.kind, Kind::Directory { opaque: true });
    let anew = toc.entries.iter().filter(|entry| anew(entry));
    let anew: Vec<Vec<u8>> = anew.map(|dir| [&dir.path[..], b"/"].concat()).collect();
    toc.entries.retain(|entry| {
        !matches!(entry.kind, Kind::Whiteout)
            || below.get(&entry.path).is_some()
            || anew.iter().any(|dir| entry.path.starts_with(dir))
    });
    toc
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn an_overlay_of_unpacked_layers_shows_the_merged_tree(
        bottom in any_items(),
        top in any_items(),
    ) {
        let (_dir, flats) = flats();
        let bottom = ordinary_change(bottom, &crate::Tree::empty(), &flats);
        let top = ordinary_change(top, &crate::testing::tree(&bottom), &flats);
        let layers = [bottom, top];
        let mut overlay = Overlay::new();
        overlay.unpack("bottom", &layers[0], &flats);
        overlay.unpack("top", &layers[1], &flats);
        overlay.mount(&["top", "bottom"], false);
        let shown = scan(&overlay.path("merged"), &flats);
        let merged = crate::Tree::merge(&layers.map(std::sync::Arc::new)).to_toc();
        prop_assert_eq!(shape(&shown), shape(&merged));
    }
}

#[test]
fn links_to_lower_layers_are_left_to_the_caller() {
    let (_dir, flats) = flats();
    let bottom = layer(&[item("below/f", Put::File(b"below".to_vec()))], &flats);
    let links = [
        item("d/link", Put::Link(b"f".to_vec())),
        item("e", Put::Fifo),
    ];
    let top = layer(&links, &flats);
    let unpacked = |toc: &Toc| {
        let target = tempfile::tempdir().unwrap();
        unpack(toc, &flats, target.path()).unwrap();
        scan(target.path(), &flats)
    };
    assert_eq!(paths(&unpacked(&top)), ["d", "e"]);
    let merged = crate::Tree::merge(&[bottom.into(), top.into()]).to_toc();
    let shown = unpacked(&merged);
    assert_eq!(paths(&shown), ["below", "below/f", "d", "d/link", "e"]);
    assert_eq!(content(&shown, "d/link", &flats), b"below");
    assert_eq!(at(&shown, "d/link").kind, at(&shown, "below/f").kind);
}

#[test]
fn a_hundred_thousand_entries_in_one_directory() {
    let (_dir, flats) = flats();
    let items: Vec<Item> = (0..100_000)
        .map(|n| item(format!("d/{n:06}"), Put::File(Vec::new())))
        .collect();
    let target = tempfile::tempdir().unwrap();
    unpack(&layer(&items, &flats), &flats, target.path()).unwrap();
    assert_eq!(
        fs::read_dir(target.path().join("d")).unwrap().count(),
        100_000
    );
}

#[test]
fn what_is_wrong_is_named() {
    let (_dir, flats) = flats();
    let toc = layer(&[item("d/f", Put::File(b"right".to_vec()))], &flats);
    let attempt = |toc: &Toc| {
        let target = tempfile::tempdir().unwrap();
        unpack(toc, &flats, target.path()).unwrap_err()
    };
    let file = fs::OpenOptions::new()
        .write(true)
        .open(flats.path(toc.flats[0]))
        .unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"w", 0).unwrap();
    let damaged = attempt(&toc).to_string();
    assert!(
        damaged.starts_with("the bytes of \"d/f\" have digest sha256:"),
        "{damaged}"
    );
    assert!(
        damaged.ends_with(&format!("flat file {} is damaged", toc.flats[0])),
        "{damaged}"
    );
    flats.remove(toc.flats[0]).unwrap();
    let missing = attempt(&toc);
    assert_eq!(
        missing.to_string(),
        "cannot read the bytes of \"d/f\" of a layer"
    );
    let source = std::error::Error::source(&missing).unwrap().to_string();
    assert_eq!(
        source,
        format!("flat file {} is not on this machine", toc.flats[0])
    );
    let target = tempfile::tempdir().unwrap();
    fs::create_dir(target.path().join("d")).unwrap();
    fs::write(target.path().join("d/f"), b"").unwrap();
    let taken = unpack(&toc, &flats, target.path()).unwrap_err();
    assert_eq!(taken.to_string(), "cannot create \"d/f\" of a layer");
}
