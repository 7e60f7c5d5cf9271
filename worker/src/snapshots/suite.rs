//! What every snapshotter must show, read back through the kernel. An implementation runs it with
//! `snapshotter_suite!(open)`, where `open` makes a snapshotter in a directory.

pub(super) mod chain;
pub(super) mod content;
pub(super) mod life;

use std::collections::HashMap;
use std::ffi::CStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use buildyard_layer::{Entry, Extent, FlatFiles, Kind, Toc, random_flat_id};
use buildyard_model::{Digest, LayerId};

use super::{LayerContent, Mounts, SnapshotError, Snapshotter, UpperDir};
use crate::runner::private;
use crate::testing::{directory, entry};

/// Makes a snapshotter in a directory, for layers whose bytes are in these flat files.
pub(super) type Open = fn(&Path, &FlatFiles) -> Arc<dyn Snapshotter>;

/// The size of a file that is one hole.
const HUGE: u64 = 1 << 26;

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

fn xattr(path: &Path, name: &CStr) -> Vec<u8> {
    let mut value = vec![0; 1000];
    let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
    value.truncate(length);
    value
}
