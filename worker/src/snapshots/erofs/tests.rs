use std::os::unix::fs::FileExt;

use buildyard_layer::{Entry, Kind, Time, random_flat_id};
use buildyard_model::{Digest, FlatId};

use super::*;
use crate::runner::private;
use crate::snapshots::suite::{self, snapshotter_suite};

fn open(dir: &Path, flats: &FlatFiles) -> Arc<dyn Snapshotter> {
    fs::create_dir_all(dir).unwrap();
    Arc::new(ErofsSnapshots::open(dir, flats.clone()).unwrap())
}

snapshotter_suite!(open);

/// A snapshotter, its flat files, and layers with one file each.
struct Bed {
    dir: tempfile::TempDir,
    flats: FlatFiles,
    snapshots: Arc<ErofsSnapshots>,
    chain: Vec<LayerId>,
    tocs: Vec<Arc<Toc>>,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let flats = FlatFiles::new(dir.path().join("flats")).unwrap();
        let snapshots = dir.path().join("snapshots");
        fs::create_dir(&snapshots).unwrap();
        Self {
            snapshots: Arc::new(ErofsSnapshots::open(&snapshots, flats.clone()).unwrap()),
            flats,
            dir,
            chain: Vec::new(),
            tocs: Vec::new(),
        }
    }

    fn reopen(&mut self) {
        let dir = self.dir.path().join("snapshots");
        self.snapshots = Arc::new(ErofsSnapshots::open(&dir, self.flats.clone()).unwrap());
    }

    /// Adds a layer with these files, and whiteouts where there are no contents; its flat file is whole or not there at all.
    fn add(&mut self, files: &[(&str, Option<&[u8]>)], there: bool) -> FlatId {
        let id = random_flat_id();
        let writer = self.flats.writer().unwrap();
        let mut entries: Vec<Entry> = files
            .iter()
            .map(|(path, contents)| {
                let kind = match contents {
                    None => Kind::Whiteout,
                    Some(contents) => {
                        let file = writer.append_file(&mut &contents[..]).unwrap();
                        Kind::File {
                            size: file.size,
                            content: file.content,
                            extents: file.extents,
                            ino: 0,
                        }
                    }
                };
                crate::testing::entry(path.as_bytes(), kind)
            })
            .collect();
        entries.sort_by(|a, b| buildyard_layer::path_cmp(&a.path, &b.path));
        assert!(entries.iter().all(|entry| entry.mtime == Time::default()));
        if there {
            writer.commit(id).unwrap();
        }
        self.chain.push(LayerId(Digest::of(id.to_string())));
        self.tocs.push(Arc::new(Toc {
            entries,
            flats: vec![id],
            ..Toc::default()
        }));
        id
    }

    /// Makes ready what is missing of the chain.
    fn fill(&self) -> Result<(), SnapshotError> {
        while let Some(at) = self.snapshots.missing(&self.chain) {
            let content = LayerContent {
                toc: &self.tocs[at],
                below: &self.tocs[..at],
                unpack: &|_| Err("nothing is unpacked".into()),
            };
            self.snapshots.ensure(&self.chain[..=at], &content)?;
        }
        Ok(())
    }

    fn lowers(&self) -> usize {
        self.snapshots.merger.settle();
        let mounts = self.snapshots.mounts(&self.chain, None).unwrap();
        match &mounts.specs[0].source {
            MountSource::Overlay { lowers, .. } => lowers.len(),
            _ => 1,
        }
    }

    /// All files of the chain's root, with their contents.
    fn see(&self) -> Vec<(String, Vec<u8>)> {
        let mounts = self.snapshots.mounts(&self.chain, None).unwrap();
        read(mounts, self.dir.path().join("place"))
    }
}

fn read(mounts: Mounts, place: std::path::PathBuf) -> Vec<(String, Vec<u8>)> {
    fs::create_dir_all(&place).unwrap();
    let seen = private::run("test", move || {
        private::mount_all(&mounts.specs, &place).unwrap();
        let mut seen: Vec<(String, Vec<u8>)> = fs::read_dir(&place)
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let name = entry.file_name().into_string().unwrap();
                (name, fs::read(entry.path()).unwrap())
            })
            .collect();
        seen.sort();
        seen
    });
    seen.unwrap()
}

fn file(name: &str, contents: &[u8]) -> (String, Vec<u8>) {
    (name.to_owned(), contents.to_vec())
}

#[test]
fn a_chain_of_many_layers_is_few_images() {
    let mut bed = Bed::new();
    for number in 0..300 {
        let (own, before) = (format!("f{number}"), format!("f{}", number - 1));
        let contents = own.clone().into_bytes();
        // Every third layer takes back what the one before it made, across the borders of groups too.
        let mut files = vec![(own.as_str(), Some(&contents[..]))];
        if number % 3 == 0 && number > 0 {
            files.push((&before, None));
        }
        bed.add(&files, true);
        bed.fill().unwrap();
    }
    // One for the first 256, two for sixteen each, twelve more.
    assert_eq!(bed.lowers(), 15);
    let kept = (0..300).filter(|number| number % 3 != 2 || *number == 299);
    let mut expected: Vec<_> = kept
        .map(|number| file(&format!("f{number}"), format!("f{number}").as_bytes()))
        .collect();
    expected.sort();
    assert_eq!(bed.see(), expected);
    bed.reopen();
    assert_eq!(
        (bed.snapshots.missing(&bed.chain), bed.lowers()),
        (None, 15)
    );
    assert_eq!(bed.see(), expected);
}

#[test]
fn big_layers_are_not_written_again() {
    let mut bed = Bed::new();
    let names: Vec<String> = (0..=cover::BIG).map(|number| number.to_string()).collect();
    let files: Vec<(&str, Option<&[u8]>)> = names
        .iter()
        .map(|name| (name.as_str(), Some(&b""[..])))
        .collect();
    bed.add(&files, true);
    for _ in 1..16 {
        bed.add(&[("file", Some(b"x"))], true);
    }
    bed.fill().unwrap();
    assert_eq!(bed.lowers(), 2);
    assert_eq!(bed.see().len(), names.len() + 1);
}

#[test]
fn only_what_is_wholly_there_is_mounted() {
    let mut bed = Bed::new();
    let parts = [vec![b'a'; 700], vec![b'b'; 10]];
    let flat = bed.add(&[("a", Some(&parts[0])), ("b", Some(&parts[1]))], false);
    assert!(matches!(bed.fill(), Err(SnapshotError::Fill { .. })));
    bed.flats.write_range(flat, 0, &parts[0]).unwrap();
    assert!(matches!(bed.fill(), Err(SnapshotError::Fill { .. })));
    let rest = [vec![0; 1024 - 700], parts[1].clone()].concat();
    bed.flats.write_range(flat, 700, &rest).unwrap();
    bed.fill().unwrap();
    let expected = [file("a", &parts[0]), file("b", &parts[1])];
    assert_eq!(bed.see(), expected);
}

#[test]
fn what_is_mounted_outlives_its_flat_files_and_nothing_else_does() {
    let mut bed = Bed::new();
    let flat = bed.add(&[("file", Some(b"contents"))], true);
    bed.fill().unwrap();
    let mounts = bed.snapshots.mounts(&bed.chain, None).unwrap();
    bed.flats.remove(flat).unwrap();
    let place = bed.dir.path().join("place");
    assert_eq!(read(mounts, place), [file("file", b"contents")]);
    bed.reopen();
    assert_eq!(bed.snapshots.missing(&bed.chain), Some(0));
    assert!(matches!(
        bed.snapshots.mounts(&bed.chain, None),
        Err(SnapshotError::Missing(_))
    ));
    // The farm made the layer again: its bytes are in another flat file now.
    let id = bed.chain[0];
    bed.add(&[("file", Some(b"contents"))], true);
    (bed.chain, bed.tocs) = (vec![id], vec![bed.tocs[1].clone()]);
    bed.fill().unwrap();
    assert_eq!(bed.see(), [file("file", b"contents")]);
}

/// Whether an image is mounted, for whichever thread of this process.
fn is_mounted(dir: &Path) -> bool {
    let dir = dir.join("snapshots/mounts/").display().to_string();
    let threads = fs::read_dir("/proc/self/task").unwrap();
    let mut tables = threads.filter_map(|thread| {
        // A thread may end meanwhile.
        fs::read_to_string(thread.ok()?.path().join("mountinfo")).ok()
    });
    tables.any(|table| table.contains(&dir))
}

/// Waits until what the threads do beside the caller is done.
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_flat_file_that_is_removed_takes_its_images_along() {
    let mut bed = Bed::new();
    let flat = bed.add(&[("file", Some(b"contents"))], true);
    bed.add(&[("other", Some(b"contents"))], true);
    bed.fill().unwrap();
    let mounts = bed.snapshots.mounts(&bed.chain, None).unwrap();
    assert!(is_mounted(bed.dir.path()));
    bed.flats.remove(flat).unwrap();
    let kept: Vec<LayerId> = bed.snapshots.holds().iter().map(|held| held.0).collect();
    assert_eq!(kept, [bed.chain[1]]);
    assert_eq!(bed.snapshots.home().names().unwrap().len(), 1);
    // A step that has it mounted keeps what it has.
    let place = bed.dir.path().join("place");
    assert_eq!(read(mounts, place).len(), 2);
    let other = bed.tocs[1].flats[0];
    bed.flats.remove(other).unwrap();
    assert!(bed.snapshots.holds().is_empty());
    wait_until("unmounted", || !is_mounted(bed.dir.path()));
}

/// Ways in which a flat file may be damaged.
const DAMAGES: [fn(&File); 4] = [
    |file| file.write_all_at(b"CONTENTS", 0).unwrap(),
    |file| file.set_len(0).unwrap(),
    |file| file.set_len(5).unwrap(),
    // All of the contents are there, but the kernel reads whole blocks.
    |file| file.set_len(100).unwrap(),
];

#[test]
fn a_damaged_flat_file_is_noticed_before_it_is_mounted_again() {
    for (number, damage) in DAMAGES.into_iter().enumerate() {
        let mut bed = Bed::new();
        let flat = bed.add(&[("file", Some(b"contents"))], true);
        bed.fill().unwrap();
        // It is mounted, and stays so for a while.
        assert_eq!(bed.see(), [file("file", b"contents")]);
        let path = bed.flats.path(flat);
        let stamp = || bed.flats.stamp(flat).unwrap();
        let (before, damaged) = (stamp(), File::options().write(true).open(path).unwrap());
        // Before Linux 6.13 a file's times are those of the last tick.
        wait_until("the change shows", || {
            damage(&damaged);
            stamp() != before
        });
        for image in bed.snapshots.images().all() {
            image.seen = None;
        }
        let missing = bed.snapshots.mounts(&bed.chain, None);
        assert!(
            matches!(missing, Err(SnapshotError::Missing(_))),
            "{number}"
        );
        let Err(SnapshotError::Fill { source, .. }) = bed.fill() else {
            panic!("made of damaged bytes: {number}");
        };
        let source = source.downcast::<UnpackError>().unwrap();
        let expected = matches!(
            (number, *source),
            (0, UnpackError::Damaged { .. }) | (1.., UnpackError::Read { .. })
        );
        assert!(expected, "{number}");
    }
}

#[test]
fn bytes_of_an_earlier_process_are_checked_once() {
    let mut bed = Bed::new();
    let flat = bed.add(&[("file", Some(b"contents"))], true);
    let path = bed.flats.path(flat);
    // Somebody else's flat files: nobody here has seen their bytes.
    bed.flats = FlatFiles::new(bed.dir.path().join("flats")).unwrap();
    bed.reopen();
    let damaged = File::options().write(true).open(&path).unwrap();
    damaged.write_all_at(b"C", 0).unwrap();
    assert!(matches!(bed.fill(), Err(SnapshotError::Fill { .. })));
    damaged.write_all_at(b"c", 0).unwrap();
    bed.fill().unwrap();
    // The record vouches for them from now on, also for a later process and for another layer of the same file.
    bed.reopen();
    assert_eq!(bed.snapshots.missing(&bed.chain), None);
    let stamp = bed.flats.stamp(flat).unwrap().unwrap();
    assert!(!bed.flats.wrote(flat, &stamp));
    let images = bed.snapshots.images();
    assert!(images.vouch_for(flat, &stamp, &[0..8, 2..4]));
    assert!(!images.vouch_for(flat, &stamp, &[0..8, 2..9]));
}

#[test]
fn images_are_mounted_where_nobody_sees_them_and_go_when_idle() {
    let mut bed = Bed::new();
    bed.add(&[("file", Some(b"contents"))], true);
    bed.fill().unwrap();
    let one = bed.snapshots.mounts(&bed.chain, None).unwrap();
    let two = bed.snapshots.mounts(&bed.chain, None).unwrap();
    assert_eq!(one.specs, two.specs, "one mount serves all");
    let dir = bed.dir.path().display().to_string();
    let seen = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!seen.contains(&dir));
    let mounted = |bed: &Bed| {
        let mut images = bed.snapshots.images();
        images.all().filter(|image| image.mount.is_some()).count()
    };
    let long_ago = Instant::now().checked_sub(2 * IDLE).unwrap();
    let age = |bed: &Bed| {
        for image in bed.snapshots.images().all() {
            image.used = long_ago;
        }
    };
    drop(one);
    age(&bed);
    bed.snapshots.holds();
    assert_eq!(mounted(&bed), 1, "it is still used");
    drop(two);
    bed.snapshots.holds();
    assert_eq!(mounted(&bed), 0);
    assert_eq!(bed.see(), [file("file", b"contents")]);
}

#[test]
#[ignore = "measures, for docs/performance.md"]
fn measure() {
    for (name, open) in [
        ("directories", measure::directories as suite::Open),
        ("erofs", open),
    ] {
        measure::layer(name, open);
        measure::chain(name, open);
    }
}

mod measure {
    use super::*;

    pub(super) fn directories(dir: &Path, _: &FlatFiles) -> Arc<dyn Snapshotter> {
        fs::create_dir_all(dir).unwrap();
        Arc::new(crate::snapshots::Directories::open(dir).unwrap())
    }

    /// A layer of 30,000 files of 2 KiB, made ready and mounted; then all of them read.
    pub(super) fn layer(name: &str, open: suite::Open) {
        let mut bed = Bed::new();
        let paths: Vec<String> = (0..30_000).map(|n| format!("{:03}/{n}", n % 300)).collect();
        let contents = [b'x'; 2048];
        let files: Vec<(&str, Option<&[u8]>)> = paths
            .iter()
            .map(|path| (path.as_str(), Some(&contents[..])))
            .collect();
        bed.add(&files, true);
        let snapshots = open(&bed.dir.path().join(name), &bed.flats);
        let began = Instant::now();
        fill(&bed, &*snapshots, 0);
        let filled = began.elapsed();
        let upper = snapshots.new_upper(&bed.chain).unwrap();
        let mounts = snapshots.mounts(&bed.chain, Some(&upper)).unwrap();
        let place = bed.dir.path().join("place");
        fs::create_dir(&place).unwrap();
        let (mounted, read) = private::run("measure", move || {
            let began = Instant::now();
            private::mount_all(&mounts.specs, &place).unwrap();
            let mounted = began.elapsed();
            let began = Instant::now();
            for path in &paths {
                assert_eq!(fs::read(place.join(path)).unwrap().len(), 2048);
            }
            (mounted, began.elapsed())
        })
        .unwrap();
        println!(
            "{name}: 30,000 files: ready {filled:.1?}, mounted {mounted:.1?}, read {read:.1?}"
        );
    }

    /// A chain of 200 layers of one file each, made ready and mounted after each.
    pub(super) fn chain(name: &str, open: suite::Open) {
        let mut bed = Bed::new();
        let snapshots = open(&bed.dir.path().join(name), &bed.flats);
        let mut parts = [Duration::ZERO; 4];
        for number in 0..200 {
            bed.add(&[(&format!("d/{number}"), Some(b"x"))], true);
            let began = Instant::now();
            fill(&bed, &*snapshots, number);
            let upper = snapshots.new_upper(&bed.chain).unwrap();
            let mounts = snapshots.mounts(&bed.chain, Some(&upper)).unwrap();
            let place = bed.dir.path().join("place");
            fs::create_dir_all(&place).unwrap();
            private::run("measure", move || private::mount_all(&mounts.specs, &place))
                .unwrap()
                .unwrap();
            parts[number / 50] += began.elapsed();
        }
        let steps: Vec<String> = parts
            .iter()
            .map(|part| format!("{:.1?}", *part / 50))
            .collect();
        println!("{name}: 200 layers: a step costs {}", steps.join(", "));
    }

    fn fill(bed: &Bed, snapshots: &dyn Snapshotter, at: usize) {
        let content = LayerContent {
            toc: &bed.tocs[at],
            below: &bed.tocs[..at],
            unpack: &|dir| Ok(buildyard_layer::unpack(&bed.tocs[at], &bed.flats, dir)?),
        };
        snapshots.ensure(&bed.chain[..=at], &content).unwrap();
    }
}
