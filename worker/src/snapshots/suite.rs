//! What every snapshotter must show, read back through the kernel. An implementation runs it with
//! `snapshotter_suite!(open)`, where `open` makes a snapshotter in a directory.

use std::collections::{BTreeMap, HashMap};
use std::ffi::CStr;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use buildyard_layer::{Entry, Extent, FlatFiles, Kind, Time, Toc, random_flat_id};
use buildyard_model::{Digest, LayerId};

use super::{Directories, LayerContent, SnapshotError, Snapshotter};
use crate::runner::private;
use crate::testing::{directory, entry};

/// Makes a snapshotter in a directory, for layers whose bytes are in these flat files.
pub(super) type Open = fn(&Path, &FlatFiles) -> Arc<dyn Snapshotter>;

/// The size of a file that is one hole.
const HUGE: u64 = 1 << 26;

/// One `#[test]` per promise.
macro_rules! snapshotter_suite {
    ($open:expr; $($case:ident),* $(,)?) => {
        $(#[test] fn $case() { $crate::snapshots::suite::$case($open) })*
    };
    ($open:expr) => {
        snapshotter_suite!($open; whiteouts_and_opaque_directories_hide, hard_links_are_one_file,
            attributes_capabilities_and_set_uid_are_kept, devices_and_pipes_are_what_they_are, sparse_files_stay_sparse,
            long_names_and_any_bytes_are_kept, directories_passed_through_look_as_below, links_to_files_below_are_links,
            the_root_looks_as_its_layers_say, a_directory_of_100000_entries_is_whole, chains_of_200_layers_mount,
            the_empty_chain_is_an_empty_directory, without_an_upper_nothing_can_be_written,
            writes_go_to_the_upper_only, one_fill_serves_all_who_ask, a_failed_fill_leaves_nothing,
            what_is_mounted_is_not_removed, layers_survive_a_restart_and_rubbish_does_not);
    };
}
pub(super) use snapshotter_suite;

/// A snapshotter, and layers made from lists of entries.
struct Bed {
    snapshots: Arc<dyn Snapshotter>,
    flats: FlatFiles,
    dir: tempfile::TempDir,
    chain: Vec<LayerId>,
    /// The tables of contents of all layers that there ever were.
    tocs: HashMap<LayerId, Arc<Toc>>,
}

impl Bed {
    fn new(open: Open) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let flats = FlatFiles::new(dir.path().join("flats")).unwrap();
        Self {
            snapshots: open(&dir.path().join("s"), &flats),
            flats,
            dir,
            chain: Vec::new(),
            tocs: HashMap::new(),
        }
    }

    /// Puts a layer on the chain. Files contain their own path; the empty path stands for the root.
    fn push(&mut self, entries: Vec<Entry>) {
        self.add(entries);
        self.fill().unwrap();
    }

    /// Puts a layer on the chain that is not filled yet.
    fn add(&mut self, entries: Vec<Entry>) {
        let toc = toc(entries);
        let id = LayerId(Digest::of(format!("{toc:?}")));
        self.tocs
            .entry(id)
            .or_insert_with(|| Arc::new(stored(toc, &self.flats)));
        self.chain.push(id);
    }

    /// Fills the top layer.
    fn fill(&self) -> Result<(), SnapshotError> {
        let tocs: Vec<Arc<Toc>> = self.chain.iter().map(|id| self.tocs[id].clone()).collect();
        let (toc, below) = tocs.split_last().unwrap();
        let unpack = |dir: &Path| Ok(buildyard_layer::unpack(toc, &self.flats, dir)?);
        let content = LayerContent {
            toc,
            below,
            unpack: &unpack,
        };
        self.snapshots.ensure(&self.chain, &content)
    }

    fn has(&self, chain: &[LayerId]) -> bool {
        self.snapshots.missing(chain).is_none()
    }

    /// What `look` sees in the mounted chain, without an upper directory.
    fn see<T: Send + 'static>(&self, look: impl FnOnce(&Path) -> T + Send + 'static) -> T {
        let mounts = self.snapshots.mounts(&self.chain, None).unwrap();
        let place = self.dir.path().join("place");
        fs::create_dir_all(&place).unwrap();
        private::run("suite", move || {
            private::mount_all(&mounts.specs, &place).unwrap();
            look(&place)
        })
        .unwrap()
    }
}

fn toc(mut entries: Vec<Entry>) -> Toc {
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Toc {
        entries,
        ..Toc::default()
    }
}

/// Writes what the files contain: their path, or as many `x` where they share an inode; a huge one is a hole.
fn stored(mut toc: Toc, flats: &FlatFiles) -> Toc {
    let writer = flats.writer().unwrap();
    let mut shared: HashMap<u32, Vec<Extent>> = HashMap::new();
    for entry in &mut toc.entries {
        let Kind::File {
            size,
            content,
            extents,
            ino,
        } = &mut entry.kind
        else {
            continue;
        };
        let bytes = match (*ino, *size) {
            (_, HUGE) => vec![0; HUGE as usize],
            (0, _) => entry.path.clone(),
            (_, size) => vec![b'x'; size as usize],
        };
        let write = || writer.append_file(&mut &bytes[..]).unwrap().extents;
        *extents = match *ino {
            0 => write(),
            ino => shared.entry(ino).or_insert_with(write).clone(),
        };
        *content = Digest::of(&bytes);
    }
    let flat = random_flat_id();
    writer.commit(flat).unwrap();
    toc.flats = vec![flat];
    toc
}

fn file(path: &str) -> Entry {
    numbered(path, 0)
}

/// A file that shares an inode with those of the same number.
fn numbered(path: &str, ino: u32) -> Entry {
    let size = path.len() as u64;
    entry(
        path.as_bytes(),
        Kind::File {
            size,
            content: Digest::of(path),
            extents: Vec::new(),
            ino,
        },
    )
}

fn dir(path: &str) -> Entry {
    directory(path.as_bytes())
}

fn place(root: &Path, path: &[u8]) -> PathBuf {
    super::attributes::inside(root, path)
}

/// All paths of a tree but its root.
fn paths(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut pending = vec![root.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            found.push(
                path.strip_prefix(root)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned(),
            );
            if fs::symlink_metadata(&path).unwrap().is_dir() {
                pending.push(path);
            }
        }
    }
    found.sort();
    found
}

pub(super) fn whiteouts_and_opaque_directories_hide(open: Open) {
    let mut bed = Bed::new(open);
    bed.push(vec![
        dir("a"),
        file("a/one"),
        file("a/two"),
        dir("b"),
        file("b/old"),
        dir("c"),
        file("c/x"),
    ]);
    bed.push(vec![
        entry(b"a/one", Kind::Whiteout),
        entry(b"b", Kind::Directory { opaque: true }),
        file("b/new"),
        entry(b"c", Kind::Whiteout),
    ]);
    assert_eq!(bed.see(paths), ["a", "a/two", "b", "b/new"]);
    bed.push(vec![dir("c"), file("c/again")]);
    assert_eq!(bed.see(paths), ["a", "a/two", "b", "b/new", "c", "c/again"]);
}

pub(super) fn hard_links_are_one_file(open: Open) {
    let mut bed = Bed::new(open);
    bed.push(vec![
        dir("d"),
        numbered("d/a", 1),
        numbered("d/b", 1),
        numbered("c/c", 1),
    ]);
    bed.push(vec![file("other")]);
    let inodes = bed.see(|root| {
        let metadata = |path: &str| fs::metadata(root.join(path)).unwrap();
        (
            metadata("d/a").ino(),
            metadata("d/b").ino(),
            metadata("c/c").ino(),
            metadata("d/a").nlink(),
        )
    });
    assert_eq!((inodes.0, inodes.0, 3), (inodes.1, inodes.2, inodes.3));
}

pub(super) fn attributes_capabilities_and_set_uid_are_kept(open: Open) {
    // struct vfs_cap_data, revision 2, effective: cap_net_raw.
    let capability: Vec<u8> = [0x0200_0001u32, 1 << 13, 0, 0, 0]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    let mut program = file("bin/ping");
    (program.mode, program.uid, program.gid) = (0o755, 3, 4);
    program.mtime = Time {
        seconds: 1_000_000_000,
        nanos: 123_456_789,
    };
    program.xattrs = BTreeMap::from([
        (b"security.capability".to_vec(), capability.clone()),
        (b"user.note".to_vec(), b"any \xff bytes".to_vec()),
    ]);
    let mut su = file("bin/su");
    su.mode = 0o6755;
    let mut tmp = dir("tmp");
    (tmp.mode, tmp.mtime.seconds) = (0o1777, -5);
    let mut bed = Bed::new(open);
    bed.push(vec![dir("bin"), program, su, tmp]);
    bed.push(vec![file("more")]);
    let seen = bed.see(|root| {
        let ping = root.join("bin/ping");
        let metadata = fs::metadata(&ping).unwrap();
        let mode = |path: &str| fs::metadata(root.join(path)).unwrap().mode() & 0o7777;
        let times = (
            metadata.mtime(),
            metadata.mtime_nsec(),
            fs::metadata(root.join("tmp")).unwrap().mtime(),
        );
        let owner = (metadata.uid(), metadata.gid());
        let xattrs = (
            xattr(&ping, c"security.capability"),
            xattr(&ping, c"user.note"),
        );
        (
            owner,
            mode("bin/ping"),
            mode("bin/su"),
            mode("tmp"),
            times,
            xattrs,
        )
    });
    let xattrs = (capability, b"any \xff bytes".to_vec());
    assert_eq!(
        seen,
        (
            (3, 4),
            0o755,
            0o6755,
            0o1777,
            (1_000_000_000, 123_456_789, -5),
            xattrs
        )
    );
}

fn xattr(path: &Path, name: &CStr) -> Vec<u8> {
    let mut value = vec![0; 1000];
    let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
    value.truncate(length);
    value
}

pub(super) fn devices_and_pipes_are_what_they_are(open: Open) {
    let mut bed = Bed::new(open);
    bed.push(vec![
        entry(b"null", Kind::CharDevice { major: 1, minor: 3 }),
        entry(
            b"disk",
            Kind::BlockDevice {
                major: 259,
                minor: 700,
            },
        ),
        entry(b"pipe", Kind::Fifo),
        entry(
            b"link",
            Kind::Symlink {
                target: b"/no/where".to_vec(),
            },
        ),
    ]);
    bed.push(vec![file("more")]);
    bed.see(|root| {
        let look = |path: &str| fs::symlink_metadata(root.join(path)).unwrap();
        assert!(
            look("null").file_type().is_char_device()
                && look("null").rdev() == rustix::fs::makedev(1, 3)
        );
        assert!(
            look("disk").file_type().is_block_device()
                && look("disk").rdev() == rustix::fs::makedev(259, 700)
        );
        assert!(look("pipe").file_type().is_fifo());
        assert_eq!(
            fs::read_link(root.join("link")).unwrap(),
            Path::new("/no/where")
        );
    });
}

pub(super) fn sparse_files_stay_sparse(open: Open) {
    let kind = Kind::File {
        size: HUGE,
        content: Digest::of(""),
        extents: Vec::new(),
        ino: 0,
    };
    let mut bed = Bed::new(open);
    bed.push(vec![entry(b"huge", kind)]);
    let (size, data) = bed.see(|root| {
        let file = fs::File::open(root.join("huge")).unwrap();
        let data = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(0));
        (file.metadata().unwrap().size(), data)
    });
    assert_eq!((size, data), (HUGE, Err(rustix::io::Errno::NXIO)));
    assert!(
        bed.snapshots.holds()[0].1 < 1 << 20,
        "a hole occupies nothing"
    );
}

pub(super) fn long_names_and_any_bytes_are_kept(open: Open) {
    let mut path = vec![0xff, 0xfe, b'\n', b'\\', b':', b','];
    path.extend([b'/'; 1]);
    path.extend([b'n'; 255]);
    let mut bed = Bed::new(open);
    bed.push(vec![entry(&path, Kind::Fifo)]);
    bed.push(vec![file("more")]);
    bed.see(move |root| {
        assert!(
            fs::symlink_metadata(place(root, &path))
                .unwrap()
                .file_type()
                .is_fifo()
        )
    });
}

pub(super) fn directories_passed_through_look_as_below(open: Open) {
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

pub(super) fn links_to_files_below_are_links(open: Open) {
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

pub(super) fn the_root_looks_as_its_layers_say(open: Open) {
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

pub(super) fn a_directory_of_100000_entries_is_whole(open: Open) {
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

pub(super) fn chains_of_200_layers_mount(open: Open) {
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

pub(super) fn the_empty_chain_is_an_empty_directory(open: Open) {
    let bed = Bed::new(open);
    assert!(bed.see(paths).is_empty());
    let upper = bed.snapshots.new_upper(&[]).unwrap();
    write(&bed, &upper, |root| fs::write(root.join("first"), "file")).unwrap();
    assert_eq!(paths(&upper.dir()), ["first"]);
    assert!(bed.see(paths).is_empty());
}

/// Does something to the chain with an upper directory.
fn write<T: Send + 'static>(
    bed: &Bed,
    upper: &super::UpperDir,
    act: impl FnOnce(&Path) -> T + Send + 'static,
) -> T {
    let mounts = bed.snapshots.mounts(&bed.chain, Some(upper)).unwrap();
    let place = bed.dir.path().join("place");
    fs::create_dir_all(&place).unwrap();
    private::run("suite", move || {
        private::mount_all(&mounts.specs, &place).unwrap();
        act(&place)
    })
    .unwrap()
}

pub(super) fn without_an_upper_nothing_can_be_written(open: Open) {
    let mut bed = Bed::new(open);
    for number in 0..3 {
        let refused = bed.see(|root| fs::write(root.join("x"), "").unwrap_err().raw_os_error());
        assert_eq!(refused, Some(libc::EROFS), "{number} layers");
        bed.push(vec![file(&format!("file{number}"))]);
    }
}

pub(super) fn writes_go_to_the_upper_only(open: Open) {
    let mut bed = Bed::new(open);
    bed.push(vec![
        dir("d"),
        file("d/changed"),
        file("d/removed"),
        file("d/kept"),
    ]);
    let upper = bed.snapshots.new_upper(&bed.chain).unwrap();
    write(&bed, &upper, |root| {
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
    assert!(!home.exists());
}

pub(super) fn one_fill_serves_all_who_ask(open: Open) {
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

pub(super) fn a_failed_fill_leaves_nothing(open: Open) {
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

pub(super) fn what_is_mounted_is_not_removed(open: Open) {
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

pub(super) fn layers_survive_a_restart_and_rubbish_does_not(open: Open) {
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
