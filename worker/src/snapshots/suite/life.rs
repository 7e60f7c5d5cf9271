//! How layers come and go, and who may write where.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use buildyard_model::LayerId;

use super::{Bed, Open, dir, file, paths};
use crate::snapshots::{Directories, LayerContent, SnapshotError};

pub(in crate::snapshots) fn without_an_upper_nothing_can_be_written(open: Open) {
    let mut bed = Bed::new(open);
    for number in 0..3 {
        let refused = bed.see(|root| fs::write(root.join("x"), "").unwrap_err().raw_os_error());
        assert_eq!(refused, Some(libc::EROFS), "{number} layers");
        bed.push(vec![file(&format!("file{number}"))]);
    }
}

pub(in crate::snapshots) fn writes_go_to_the_upper_only(open: Open) {
    let mut bed = Bed::new(open);
    bed.push(vec![
        dir("d"),
        file("d/changed"),
        file("d/removed"),
        file("d/kept"),
    ]);
    let upper = bed.snapshots.new_upper(&bed.chain).unwrap();
    bed.write(&upper, |root| {
        fs::write(root.join("d/changed"), "new").unwrap();
        fs::remove_file(root.join("d/removed")).unwrap();
    });
    let whiteout = fs::symlink_metadata(upper.dir().join("d/removed")).unwrap();
    assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0);
    assert_eq!(
        fs::read_to_string(upper.dir().join("d/changed")).unwrap(),
        "new"
    );
    assert!(!upper.dir().join("d/kept").exists());
    assert_eq!(
        bed.see(|root| fs::read_to_string(root.join("d/changed")).unwrap()),
        "d/changed"
    );
    let home = upper.home().to_owned();
    drop(upper);
    // Whatever was dropped has gone when the snapshotter has.
    drop(bed.snapshots);
    assert!(!home.exists());
}

pub(in crate::snapshots) fn one_fill_serves_all_who_ask(open: Open) {
    let mut bed = Bed::new(open);
    bed.add(vec![file("file")]);
    let fills = AtomicUsize::new(0);
    let toc = bed.tocs[&bed.chain[0]].clone();
    let together = std::sync::Barrier::new(8);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let unpack = |dir: &Path| {
                    fills.fetch_add(1, Ordering::SeqCst);
                    Ok(buildyard_layer::unpack(&toc, &bed.flats, dir)?)
                };
                let content = LayerContent {
                    toc: &toc,
                    below: &[],
                    unpack: &unpack,
                };
                together.wait();
                bed.snapshots.ensure(&bed.chain, &content).unwrap();
            });
        }
    });
    let most = if bed.snapshots.reads_flats() { 0 } else { 1 };
    assert_eq!(fills.into_inner(), most);
    assert_eq!(bed.see(paths), ["file"]);
    assert_eq!(bed.snapshots.holds().len(), 1);
}

pub(in crate::snapshots) fn a_failed_fill_leaves_nothing(open: Open) {
    let mut bed = Bed::new(open);
    bed.add(vec![file("file")]);
    let flat = bed.tocs[&bed.chain[0]].flats[0];
    let (here, away) = (bed.flats.path(flat), bed.dir.path().join("away"));
    fs::rename(&here, &away).unwrap();
    assert!(matches!(bed.fill(), Err(SnapshotError::Fill { .. })));
    assert!(matches!(
        bed.snapshots.mounts(&bed.chain, None),
        Err(SnapshotError::Missing(_))
    ));
    assert!(bed.snapshots.holds().is_empty());
    fs::rename(&away, &here).unwrap();
    bed.fill().unwrap();
    assert_eq!(bed.see(paths), ["file"]);
}

pub(in crate::snapshots) fn what_is_mounted_is_not_removed(open: Open) {
    let mut bed = Bed::new(open);
    bed.push(vec![file("file")]);
    let layer = bed.chain[0];
    let mounts = bed.snapshots.mounts(&bed.chain, None).unwrap();
    assert_eq!(bed.snapshots.remove(layer).unwrap(), None);
    drop(mounts);
    let held = bed.snapshots.holds();
    assert!(held[0].0 == layer && held[0].1 > 0, "{held:?}");
    assert_eq!(bed.snapshots.remove(layer).unwrap(), Some(held[0].1));
    assert_eq!(bed.snapshots.remove(layer).unwrap(), None);
    assert!(
        matches!(bed.snapshots.mounts(&bed.chain, None), Err(SnapshotError::Missing(missing)) if missing == layer)
    );
}

pub(in crate::snapshots) fn layers_survive_a_restart_and_rubbish_does_not(open: Open) {
    let mut bed = Bed::new(open);
    bed.push(vec![dir("d"), file("d/x")]);
    bed.push(vec![file("d/y")]);
    let held = bed.snapshots.holds();
    let upper = bed.snapshots.new_upper(&bed.chain).unwrap();
    let left = upper.home().to_owned();
    std::mem::forget(upper);
    let flats = bed.flats.clone();
    // The old one goes first, as the process of a worker does.
    bed.snapshots = Arc::new(Directories::open(&bed.dir.path().join("none")).unwrap());
    bed.snapshots = open(&bed.dir.path().join("s"), &flats);
    assert!(!left.exists());
    let sorted = |mut list: Vec<(LayerId, u64)>| {
        list.sort();
        list
    };
    assert_eq!(sorted(bed.snapshots.holds()), sorted(held));
    assert_eq!(bed.see(paths), ["d", "d/x", "d/y"]);
}
