//! What a chain of layers shows together.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use buildyard_layer::Kind;

use super::{Bed, Open, dir, file, numbered, paths, xattr};
use crate::snapshots::SnapshotError;
use crate::testing::entry;

pub(in crate::snapshots) fn directories_passed_through_look_as_below(open: Open) {
    let mut home = dir("home");
    (home.mode, home.uid, home.mtime.seconds) = (0o2750, 42, 777);
    home.xattrs = BTreeMap::from([(b"user.kept".to_vec(), b"yes".to_vec())]);
    let mut bed = Bed::new(open);
    bed.push(vec![home, dir("home/sub")]);
    bed.push(vec![file("home/sub/file")]);
    bed.push(vec![file("home/file"), file("new/deep/file")]);
    let seen = bed.see(|root| {
        let home = fs::metadata(root.join("home")).unwrap();
        let new = fs::metadata(root.join("new/deep")).unwrap();
        let xattr = xattr(&root.join("home"), c"user.kept");
        (
            home.mode() & 0o7777,
            home.uid(),
            home.mtime(),
            xattr,
            new.mode() & 0o7777,
            new.mtime(),
        )
    });
    assert_eq!(seen, (0o2750, 42, 777, b"yes".to_vec(), 0o755, 0));
    // The same layer over another chain is another form of it.
    let top = bed.chain.clone();
    bed.chain.clear();
    let mut home = dir("home");
    home.uid = 43;
    bed.push(vec![home, dir("home/sub")]);
    bed.push(vec![file("home/sub/file")]);
    assert_eq!(bed.chain[1], top[1]);
    assert!(bed.has(&bed.chain) && bed.has(&top[..2]));
    assert!(!bed.has(&top[1..2]), "never filled over nothing");
    assert_eq!(
        bed.see(|root| fs::metadata(root.join("home")).unwrap().uid()),
        43
    );
    bed.chain = top;
    assert_eq!(
        bed.see(|root| fs::metadata(root.join("home")).unwrap().uid()),
        42
    );
}

pub(in crate::snapshots) fn links_to_files_below_are_links(open: Open) {
    let mut target = file("lib/target");
    (target.mode, target.uid, target.mtime.seconds) = (0o4711, 5, 99);
    let mut bed = Bed::new(open);
    bed.push(vec![dir("lib"), target]);
    bed.push(vec![file("between")]);
    let link = |path: &str, target: &str| {
        entry(
            path.as_bytes(),
            Kind::LinkBelow {
                target: target.as_bytes().to_vec(),
            },
        )
    };
    bed.push(vec![
        link("bin/one", "lib/target"),
        link("bin/two", "lib/target"),
    ]);
    let seen = bed.see(|root| {
        let metadata = |path: &str| fs::metadata(root.join(path)).unwrap();
        let one = metadata("bin/one");
        assert_eq!(fs::read(root.join("bin/one")).unwrap(), b"lib/target");
        assert_eq!(one.ino(), metadata("bin/two").ino());
        assert_eq!(one.ino(), metadata("lib/target").ino());
        (one.mode() & 0o7777, one.uid(), one.mtime())
    });
    assert_eq!(seen, (0o4711, 5, 99));
    // A target that was removed is no target.
    bed.push(vec![entry(b"between", Kind::Whiteout)]);
    bed.add(vec![link("x", "between")]);
    assert!(matches!(bed.fill(), Err(SnapshotError::LinkTarget { .. })));
}

pub(in crate::snapshots) fn the_root_looks_as_its_layers_say(open: Open) {
    let mut root = dir("");
    (root.mode, root.uid, root.mtime.seconds) = (0o711, 9, 88);
    let look = |root: &Path| {
        let metadata = fs::metadata(root).unwrap();
        (metadata.mode() & 0o7777, metadata.uid(), metadata.mtime())
    };
    let mut bed = Bed::new(open);
    bed.push(vec![file("plain")]);
    assert_eq!(bed.see(look), (0o755, 0, 0));
    bed.push(vec![root]);
    bed.push(vec![file("plain")]);
    assert_eq!(bed.see(look), (0o711, 9, 88));
    let upper = bed.snapshots.new_upper(&bed.chain).unwrap();
    assert_eq!(look(&upper.dir()), (0o711, 9, 88));
    // The first and the third layer are one: over an undescribed root it looks undescribed.
    bed.chain.truncate(1);
    assert_eq!(bed.see(look), (0o755, 0, 0));
}

pub(in crate::snapshots) fn a_directory_of_100000_entries_is_whole(open: Open) {
    let mut bed = Bed::new(open);
    let mut entries = vec![dir("many")];
    entries.extend(
        (0..100_000).map(|number| numbered(&format!("many/{number:06}"), 1 + number / 10_000)),
    );
    bed.push(entries);
    bed.push(vec![
        entry(b"many/000007", Kind::Whiteout),
        file("many/new"),
    ]);
    assert_eq!(
        bed.see(|root| fs::read_dir(root.join("many")).unwrap().count()),
        100_000
    );
}

pub(in crate::snapshots) fn chains_of_200_layers_mount(open: Open) {
    let mut bed = Bed::new(open);
    bed.push(vec![dir("d")]);
    for number in 1..200 {
        bed.push(vec![dir("d"), file(&format!("d/{number}"))]);
    }
    assert_eq!(
        bed.see(|root| fs::read_dir(root.join("d")).unwrap().count()),
        199
    );
}

pub(in crate::snapshots) fn the_empty_chain_is_an_empty_directory(open: Open) {
    let bed = Bed::new(open);
    assert!(bed.see(paths).is_empty());
    let upper = bed.snapshots.new_upper(&[]).unwrap();
    bed.write(&upper, |root| fs::write(root.join("first"), "file"))
        .unwrap();
    assert_eq!(paths(&upper.dir()), ["first"]);
    assert!(bed.see(paths).is_empty());
}
