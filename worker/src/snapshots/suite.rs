//! What every snapshotter must show, read back through the kernel. An implementation runs it with
//! `snapshotter_suite!(open)`, where `open` makes a snapshotter in a directory.

pub(super) mod chain;
pub(super) mod content;
pub(super) mod life;

use std::ffi::{CStr, OsStr};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use buildyard_layer::{Entry, Kind, Toc};
use buildyard_model::{Digest, LayerId};
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

use super::{LayerContent, Mounts, SnapshotError, Snapshotter, UpperDir};
use crate::runner::private;
use crate::testing::{directory, entry};

/// Makes a snapshotter in a directory.
pub(super) type Open = fn(&Path) -> Arc<dyn Snapshotter>;

/// One `#[test]` per promise.
macro_rules! snapshotter_suite {
    ($open:expr; $($of:ident: $($case:ident),+;)+) => {
        $($(#[test] fn $case() { $crate::snapshots::suite::$of::$case($open) })+)+
    };
    ($open:expr) => {
        snapshotter_suite!($open;
            content: whiteouts_and_opaque_directories_hide, hard_links_are_one_file,
                attributes_capabilities_and_set_uid_are_kept, devices_and_pipes_are_what_they_are,
                sparse_files_stay_sparse, long_names_and_any_bytes_are_kept;
            chain: directories_passed_through_look_as_below, links_to_files_below_are_links,
                the_root_looks_as_its_layers_say, a_directory_of_100000_entries_is_whole,
                chains_of_200_layers_mount, the_empty_chain_is_an_empty_directory;
            life: without_an_upper_nothing_can_be_written, writes_go_to_the_upper_only,
                one_fill_serves_all_who_ask, a_failed_fill_leaves_nothing, what_is_mounted_is_not_removed,
                layers_survive_a_restart_and_rubbish_does_not;
        );
    };
}
pub(super) use snapshotter_suite;

/// A snapshotter, and layers made from lists of entries.
struct Bed {
    snapshots: Arc<dyn Snapshotter>,
    dir: tempfile::TempDir,
    chain: Vec<LayerId>,
}

impl Bed {
    fn new(open: Open) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            snapshots: open(&dir.path().join("s")),
            dir,
            chain: Vec::new(),
        }
    }

    /// Puts a layer on the chain. Files contain their own path; `.` stands for the root.
    fn push(&mut self, entries: Vec<Entry>) {
        let toc = toc(entries);
        self.chain.push(LayerId(Digest::of(format!("{toc:?}"))));
        self.fill(&toc).unwrap();
    }

    fn fill(&self, toc: &Toc) -> Result<(), SnapshotError> {
        let unpack = |dir: &Path| {
            toc.entries.iter().for_each(|entry| make(dir, entry));
            toc.entries
                .iter()
                .rev()
                .for_each(|entry| finish(dir, entry));
            Ok(())
        };
        self.snapshots.ensure(
            &self.chain,
            &LayerContent {
                toc,
                unpack: &unpack,
            },
        )
    }

    /// What `look` sees in the mounted chain, without an upper directory.
    fn see<T: Send + 'static>(&self, look: impl FnOnce(&Path) -> T + Send + 'static) -> T {
        let mounts = self.snapshots.mounts(&self.chain, None).unwrap();
        self.mounted(mounts, look)
    }

    /// Does something to the chain with an upper directory.
    fn write<T: Send + 'static>(
        &self,
        upper: &UpperDir,
        act: impl FnOnce(&Path) -> T + Send + 'static,
    ) -> T {
        let mounts = self.snapshots.mounts(&self.chain, Some(upper)).unwrap();
        self.mounted(mounts, act)
    }

    /// Makes the mounts, in a namespace of their own, and does something there.
    fn mounted<T: Send + 'static>(
        &self,
        mounts: Mounts,
        act: impl FnOnce(&Path) -> T + Send + 'static,
    ) -> T {
        let place = self.dir.path().join("place");
        fs::create_dir_all(&place).unwrap();
        private::run("suite", move || {
            private::mount_all(&mounts.specs, &place).unwrap();
            act(&place)
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

/// Makes an entry in overlayfs's form, as `buildyard_layer::unpack` does.
fn make(root: &Path, entry: &Entry) {
    let path = place(root, &entry.path);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).unwrap();
    }
    let node = |kind, major, minor| {
        rustix::fs::mknodat(
            CWD,
            &path,
            kind,
            Mode::from(0o600),
            rustix::fs::makedev(major, minor),
        )
        .unwrap();
    };
    match &entry.kind {
        Kind::Directory { opaque } => {
            fs::create_dir_all(&path).unwrap();
            if *opaque {
                let name = c"trusted.overlay.opaque";
                rustix::fs::lsetxattr(&path, name, b"y", XattrFlags::empty()).unwrap();
            }
        }
        Kind::File { size, ino, .. } if *ino != 0 => {
            let first = root.join(format!(".first-{ino}-{size}"));
            if !first.exists() {
                fs::write(&first, vec![b'x'; *size as usize]).unwrap();
            }
            fs::hard_link(&first, &path).unwrap();
        }
        Kind::File { size, .. } if *size > 1 << 20 => {
            fs::File::create(&path).unwrap().set_len(*size).unwrap()
        }
        Kind::File { .. } => fs::write(&path, &entry.path).unwrap(),
        Kind::Symlink { target } => symlink(OsStr::from_bytes(target), &path).unwrap(),
        Kind::CharDevice { major, minor } => node(FileType::CharacterDevice, *major, *minor),
        Kind::BlockDevice { major, minor } => node(FileType::BlockDevice, *major, *minor),
        Kind::Fifo => node(FileType::Fifo, 0, 0),
        Kind::Whiteout => node(FileType::CharacterDevice, 0, 0),
        Kind::LinkBelow { .. } => {}
    }
}

/// Gives an entry its attributes.
fn finish(root: &Path, entry: &Entry) {
    let path = place(root, &entry.path);
    if let Kind::File { size, ino, .. } = entry.kind {
        let _ = fs::remove_file(root.join(format!(".first-{ino}-{size}")));
    }
    if matches!(entry.kind, Kind::LinkBelow { .. } | Kind::Whiteout) {
        return;
    }
    std::os::unix::fs::lchown(&path, Some(entry.uid), Some(entry.gid)).unwrap();
    if !matches!(entry.kind, Kind::Symlink { .. }) {
        fs::set_permissions(&path, fs::Permissions::from_mode(entry.mode)).unwrap();
    }
    for (name, value) in &entry.xattrs {
        rustix::fs::lsetxattr(&path, OsStr::from_bytes(name), value, XattrFlags::empty()).unwrap();
    }
    let time = Timespec {
        tv_sec: entry.mtime.seconds,
        tv_nsec: entry.mtime.nanos.into(),
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
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

fn xattr(path: &Path, name: &CStr) -> Vec<u8> {
    let mut value = vec![0; 1000];
    let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
    value.truncate(length);
    value
}
