use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::*;
use crate::testing::{
    Item, Overlay, Put, at, content, flats, item, layer, paths, scan, tree, without_flats,
};
use crate::{Time, unpack};

fn base() -> Vec<Item> {
    let mut special = item("special", Put::Directory);
    special.mode = 0o2775;
    vec![
        item("dir", Put::Directory),
        item("dir/a", Put::File(b"a".to_vec())),
        item("dir/b", Put::File(b"b".to_vec())),
        item("dir/sub", Put::Directory),
        item("dir/sub/c", Put::File(vec![9; 3000])),
        item("file", Put::File(b"file".to_vec())),
        item("link", Put::Symlink(b"file".to_vec())),
        item("other", Put::File(b"other".to_vec())),
        special,
        item("special/x", Put::File(b"x".to_vec())),
    ]
    .into_iter()
    .map(|mut i| {
        if matches!(i.put, Put::Directory) && i.mode == 0o644 {
            i.mode = 0o755;
        }
        i
    })
    .collect()
}

/// The layer that `step` makes of `base()`, captured from a real overlay.
///
/// Also checks, for every step, that the captured layer unpacked over the base shows what the step saw, and that it
/// holds its invariants.
fn step(stubs: &[&str], step: impl FnOnce(&Path)) -> (Toc, FlatFiles, tempfile::TempDir) {
    let (dir, flats) = flats();
    let lower = layer(&base(), &flats);
    let mut overlay = Overlay::new();
    overlay.unpack("lower", &lower, &flats);
    overlay.mount(&["lower"], true);
    step(&overlay.path("merged"));
    let seen = scan(&overlay.path("merged"), &flats);
    overlay.unmount();
    let stubs: Vec<Vec<u8>> = stubs.iter().map(|s| s.as_bytes().to_vec()).collect();
    let captured = capture(&overlay.path("upper"), &tree(&lower), &stubs, &flats, 3).unwrap();
    captured.toc.check().unwrap();
    assert_eq!(
        captured.flat.into_iter().collect::<Vec<_>>(),
        captured.toc.flats
    );
    let again = capture(&overlay.path("upper"), &tree(&lower), &stubs, &flats, 1).unwrap();
    assert_eq!(without_flats(&again.toc), without_flats(&captured.toc));
    overlay.unpack("captured", &captured.toc, &flats);
    overlay.mount(&["captured", "lower"], false);
    let shown = scan(&overlay.path("merged"), &flats);
    overlay.unmount();
    assert_eq!(comparable(&shown, &stubs), comparable(&seen, &stubs));
    (captured.toc, flats, dir)
}

/// Without stubs and the times of directories, which don't make a change.
fn comparable(toc: &Toc, stubs: &[Vec<u8>]) -> Toc {
    let mut toc = without_flats(toc);
    toc.entries.retain(|e| !stubs.contains(&e.path));
    for entry in toc
        .entries
        .iter_mut()
        .filter(|e| matches!(e.kind, Kind::Directory { .. }))
    {
        entry.mtime = Time::default();
    }
    toc
}

fn nothing(toc: &Toc) {
    assert_eq!(paths(toc), Vec::<String>::new());
}

#[test]
fn what_is_new_or_different_is_kept_with_its_parents() {
    let (toc, flats, _dir) = step(&[], |root| {
        fs::write(root.join("dir/sub/new"), vec![5; 2_000_000]).unwrap();
        fs::write(root.join("file"), b"FILE").unwrap();
        fs::create_dir_all(root.join("n1/n2")).unwrap();
        symlink("/x", root.join("n1/s")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            root.join("null"),
            rustix::fs::FileType::CharacterDevice,
            0o666.into(),
            rustix::fs::makedev(1, 3),
        )
        .unwrap();
        fs::create_dir(root.join("etc")).unwrap();
        fs::write(root.join("etc/passwd"), b"u:x:1:1").unwrap();
    });
    assert_eq!(
        paths(&toc),
        [
            "dir",
            "dir/sub",
            "dir/sub/new",
            "etc",
            "etc/passwd",
            "file",
            "n1",
            "n1/n2",
            "n1/s",
            "null"
        ]
    );
    assert_eq!(content(&toc, "dir/sub/new", &flats), vec![5; 2_000_000]);
    assert_eq!(content(&toc, "file", &flats), b"FILE");
    assert_eq!(
        at(&toc, "null").kind,
        Kind::CharDevice { major: 1, minor: 3 }
    );
    assert_eq!(toc.names.passwd.as_deref(), Some(b"u:x:1:1".as_slice()));
    // The kernel marks new directories as opaque; nothing is below them.
    for directory in ["n1", "n1/n2", "etc"] {
        assert_eq!(
            at(&toc, directory).kind,
            Kind::Directory { opaque: false },
            "{directory}"
        );
    }
}

#[test]
fn copied_up_but_unchanged_vanishes() {
    let (toc, _flats, _dir) = step(&[], |root| {
        let same = fs::metadata(root.join("dir/sub/c")).unwrap().permissions();
        fs::set_permissions(root.join("dir/sub/c"), same).unwrap();
        let times = fs::metadata(root.join("file")).unwrap().modified().unwrap();
        fs::write(root.join("file"), b"file").unwrap();
        fs::File::options()
            .write(true)
            .open(root.join("file"))
            .unwrap()
            .set_modified(times)
            .unwrap();
        fs::write(root.join("special/temporary"), b"").unwrap();
        fs::remove_file(root.join("special/temporary")).unwrap();
    });
    nothing(&toc);
    assert_eq!(toc.flats, [], "no bytes are kept of it");
}

#[test]
fn metadata_and_times_are_changes() {
    let (toc, _flats, _dir) = step(&[], |root| {
        fs::set_permissions(root.join("dir/a"), fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::lchown(root.join("link"), Some(5), None).unwrap();
        fs::File::options()
            .write(true)
            .open(root.join("other"))
            .unwrap()
            .set_modified(std::time::UNIX_EPOCH)
            .unwrap();
        rustix::fs::setxattr(
            root.join("dir/b"),
            "user.k",
            b"v",
            rustix::fs::XattrFlags::empty(),
        )
        .unwrap();
        fs::set_permissions(root.join("special"), fs::Permissions::from_mode(0o1777)).unwrap();
        fs::set_permissions(root, fs::Permissions::from_mode(0o700)).unwrap();
    });
    assert_eq!(
        paths(&toc),
        ["", "dir", "dir/a", "dir/b", "link", "other", "special"]
    );
    assert_eq!(
        (
            at(&toc, "dir/a").mode,
            at(&toc, "link").uid,
            at(&toc, "").mode
        ),
        (0o600, 5, 0o700)
    );
    assert_eq!(at(&toc, "dir/b").xattrs[b"user.k".as_slice()], b"v");
    assert_eq!(at(&toc, "other").mtime, Time::default());
}

#[test]
fn removals_are_whiteouts_of_what_is_below() {
    let (toc, _flats, _dir) = step(&[], |root| {
        fs::remove_file(root.join("dir/a")).unwrap();
        fs::remove_dir_all(root.join("special")).unwrap();
        fs::write(root.join("never"), b"").unwrap();
        fs::remove_file(root.join("never")).unwrap();
        fs::remove_file(root.join("file")).unwrap();
        let _ = std::os::unix::net::UnixListener::bind(root.join("file")).unwrap();
        let _ = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
        // Scanning must see what the layer will show.
        fs::remove_file(root.join("file")).unwrap();
        fs::remove_file(root.join("socket")).unwrap();
    });
    assert_eq!(paths(&toc), ["dir", "dir/a", "file", "special"]);
    for gone in ["dir/a", "file", "special"] {
        assert_eq!(at(&toc, gone).kind, Kind::Whiteout, "{gone}");
    }
}

#[test]
fn sockets_are_dropped() {
    let (_dir, flats) = flats();
    let lower = layer(&[item("file", Put::File(b"x".to_vec()))], &flats);
    let upper = tempfile::tempdir().unwrap();
    let _one = std::os::unix::net::UnixListener::bind(upper.path().join("file")).unwrap();
    let _two = std::os::unix::net::UnixListener::bind(upper.path().join("new")).unwrap();
    fs::set_permissions(upper.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let toc = capture(upper.path(), &tree(&lower), &[], &flats, 1)
        .unwrap()
        .toc;
    assert_eq!(paths(&toc), ["file"]);
    assert_eq!(at(&toc, "file").kind, Kind::Whiteout);
}

#[test]
fn a_directory_made_anew_hides_what_was_below() {
    let (toc, _flats, _dir) = step(&[], |root| {
        fs::remove_dir_all(root.join("dir")).unwrap();
        fs::create_dir(root.join("dir")).unwrap();
        // Equal to the one below, which no longer shows through.
        fs::write(root.join("dir/b"), b"b").unwrap();
        let file = fs::File::options()
            .write(true)
            .open(root.join("dir/b"))
            .unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1))
            .unwrap();
        fs::remove_file(root.join("file")).unwrap();
        fs::create_dir(root.join("file")).unwrap();
        fs::remove_dir_all(root.join("special")).unwrap();
        fs::write(root.join("special"), b"now a file").unwrap();
    });
    assert_eq!(paths(&toc), ["dir", "dir/b", "file", "special"]);
    assert_eq!(at(&toc, "dir").kind, Kind::Directory { opaque: true });
    assert_eq!(at(&toc, "file").kind, Kind::Directory { opaque: false });
}

#[test]
fn hard_links_are_kept() {
    let (toc, flats, _dir) = step(&[], |root| {
        fs::hard_link(root.join("other"), root.join("dir/linked")).unwrap();
        fs::write(root.join("x1"), b"").unwrap();
        fs::hard_link(root.join("x1"), root.join("x0")).unwrap();
    });
    assert_eq!(paths(&toc), ["dir", "dir/linked", "other", "x0", "x1"]);
    let ino = |path: &str| match at(&toc, path).kind {
        Kind::File { ino, .. } => ino,
        _ => panic!("{path} is not a file"),
    };
    assert_eq!(
        [ino("dir/linked"), ino("other"), ino("x0"), ino("x1")],
        [1, 1, 2, 2]
    );
    assert_eq!(content(&toc, "dir/linked", &flats), b"other");
}

#[test]
fn stubs_vanish_while_they_are_empty() {
    let stubs = ["etc", "etc/resolv.conf", "proc", "mnt", "used"];
    let (toc, _flats, _dir) = step(&stubs, |root| {
        fs::create_dir(root.join("etc")).unwrap();
        fs::write(root.join("etc/resolv.conf"), b"").unwrap();
        fs::create_dir(root.join("proc")).unwrap();
    });
    nothing(&toc);
    let (_dir, flats) = flats();
    let upper = tempfile::tempdir().unwrap();
    fs::set_permissions(upper.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir_all(upper.path().join("etc")).unwrap();
    fs::write(upper.path().join("etc/resolv.conf"), b"written by the step").unwrap();
    fs::create_dir_all(upper.path().join("mnt")).unwrap();
    let stubs: Vec<Vec<u8>> = stubs.iter().map(|s| s.as_bytes().to_vec()).collect();
    let toc = capture(upper.path(), &Tree::empty(), &stubs, &flats, 1)
        .unwrap()
        .toc;
    assert_eq!(paths(&toc), ["etc", "etc/resolv.conf"]);
}

/// The id must not depend on how often a step runs, nor on the threads.
#[test]
fn the_same_step_gives_the_same_layer() {
    let run = || {
        step(&[], |root| {
            for n in 0..50 {
                fs::write(root.join(format!("f{n}")), vec![n; 1000 * usize::from(n)]).unwrap();
            }
            fs::hard_link(root.join("f7"), root.join("a")).unwrap();
            fs::remove_file(root.join("other")).unwrap();
        })
    };
    assert_eq!(run().0.layer_id(), run().0.layer_id());
}

#[test]
fn a_captured_layer_survives_its_tar_form() {
    let (toc, flats, _dir) = step(&[], |root| {
        fs::write(root.join("dir/new"), b"new").unwrap();
        fs::hard_link(root.join("dir/new"), root.join("dir/new2")).unwrap();
        fs::remove_dir_all(root.join("dir/sub")).unwrap();
        fs::create_dir(root.join("dir/sub")).unwrap();
    });
    let mut tar = Vec::new();
    crate::write_tar(&toc, &flats, &mut tar).unwrap();
    let back = crate::read_tar(tar.as_slice(), &flats, &crate::Limits::default()).unwrap();
    assert_eq!(back.toc.layer_id(), toc.layer_id());
    let target = tempfile::tempdir().unwrap();
    unpack(&back.toc, &flats, target.path()).unwrap();
}

#[test]
fn a_layer_is_captured_without_waiting_for_the_disk() {
    let (_flats, flats) = flats();
    let upper = tempfile::tempdir().unwrap();
    fs::write(upper.path().join("file"), "what a step wrote").unwrap();
    let captured = capture(upper.path(), &Tree::empty(), &[], &flats, 2).unwrap();
    let flat = captured.flat.unwrap();
    assert_eq!(flats.syncs(), 0);
    flats.sync(flat).unwrap();
    assert_eq!(
        flats.syncs(),
        1,
        "before anything that names it is recorded"
    );
    flats.remove(flat).unwrap();
    flats.sync(flat).unwrap();
    assert_eq!(flats.syncs(), 1, "what is gone is not waited for");
}
