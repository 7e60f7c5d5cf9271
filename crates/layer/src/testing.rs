//! What the tests of this crate share: a place for flat files, layers by hand, and arbitrary layers.

use std::collections::BTreeMap;
use std::io::Read;

use proptest::prelude::*;

use crate::assemble::{Assembler, bare};
use crate::{Entry, FileReader, FlatFiles, Kind, Time, Toc, random_flat_id, read_names};

/// Flat files in a directory that goes away.
pub(crate) fn flats() -> (tempfile::TempDir, FlatFiles) {
    let directory = tempfile::tempdir().unwrap();
    let flats = FlatFiles::new(directory.path()).unwrap();
    (directory, flats)
}

/// One thing to put into a layer.
#[derive(Debug, Clone)]
pub(crate) enum Put {
    File(Vec<u8>),
    Directory,
    Opaque,
    Symlink(Vec<u8>),
    Device(u32, u32),
    Fifo,
    Whiteout,
    Link(Vec<u8>),
}

/// A path with metadata.
#[derive(Clone)]
pub(crate) struct Item {
    pub(crate) path: Vec<u8>,
    pub(crate) put: Put,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) mtime: Time,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Short, because failing properties print whole layers.
impl std::fmt::Debug for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let put = match &self.put {
            Put::File(bytes) => format!("file of {}", bytes.len()),
            Put::Symlink(target) => format!("symlink to {}", target.escape_ascii()),
            Put::Link(target) => format!("link to {}", target.escape_ascii()),
            Put::Device(major, minor) => format!("device {major}:{minor}"),
            Put::Directory => "directory".into(),
            Put::Opaque => "opaque".into(),
            Put::Fifo => "fifo".into(),
            Put::Whiteout => "whiteout".into(),
        };
        write!(
            f,
            "{}: {put} {:o} {} {:?} {}",
            self.path.escape_ascii(),
            self.mode,
            self.uid,
            self.mtime,
            self.xattrs.len()
        )
    }
}

/// An item with plain metadata.
pub(crate) fn item(path: impl AsRef<[u8]>, put: Put) -> Item {
    Item {
        path: path.as_ref().to_vec(),
        put,
        mode: 0o644,
        uid: 0,
        mtime: Time {
            seconds: 1,
            nanos: 0,
        },
        xattrs: BTreeMap::new(),
    }
}

/// The layer of `items`; those that do not fit together are left out.
pub(crate) fn layer(items: &[Item], flats: &FlatFiles) -> Toc {
    let writer = flats.writer().unwrap();
    let mut assembler = Assembler::default();
    for item in items {
        let mut entry = bare(item.path.clone(), Kind::Fifo, item.mode);
        (entry.uid, entry.gid, entry.mtime, entry.xattrs) =
            (item.uid, item.uid / 2, item.mtime, item.xattrs.clone());
        let kind = match &item.put {
            Put::File(bytes) => {
                let file = writer.append_file(&mut bytes.as_slice()).unwrap();
                Kind::File {
                    size: file.size,
                    content: file.content,
                    extents: file.extents,
                    ino: 0,
                }
            }
            Put::Directory => Kind::Directory { opaque: false },
            Put::Opaque => Kind::Directory { opaque: true },
            Put::Symlink(target) => Kind::Symlink {
                target: target.clone(),
            },
            Put::Device(major, minor) => Kind::CharDevice {
                major: *major,
                minor: *minor,
            },
            Put::Fifo => Kind::Fifo,
            Put::Whiteout => {
                let _ = assembler.whiteout(&item.path);
                continue;
            }
            Put::Link(target) => {
                let below = [b"below/", &target[..]].concat();
                let target = if assembler.has(target) {
                    target
                } else {
                    &below
                };
                let _ = assembler.link(entry, target);
                continue;
            }
        };
        entry.kind = kind;
        let _ = assembler.set(entry);
    }
    let flat = random_flat_id();
    writer.commit(flat).unwrap();
    let mut toc = Toc {
        entries: assembler.finish().unwrap(),
        flats: vec![flat],
        ..Toc::default()
    };
    toc.names = read_names(&toc, flats).unwrap();
    toc.check().unwrap();
    toc
}

/// The entry at `path`.
pub(crate) fn at(toc: &Toc, path: impl AsRef<[u8]>) -> &Entry {
    let found = toc.entries.iter().find(|e| e.path == path.as_ref());
    found.unwrap_or_else(|| {
        panic!(
            "no {:?} among {:?}",
            path.as_ref().escape_ascii().to_string(),
            paths(toc)
        )
    })
}

/// All paths, as text.
pub(crate) fn paths(toc: &Toc) -> Vec<String> {
    toc.entries
        .iter()
        .map(|e| e.path.escape_ascii().to_string())
        .collect()
}

/// The bytes of a file.
pub(crate) fn content(toc: &Toc, path: impl AsRef<[u8]>, flats: &FlatFiles) -> Vec<u8> {
    let mut bytes = Vec::new();
    FileReader::of_entry(flats, toc, at(toc, path))
        .unwrap()
        .read_to_end(&mut bytes)
        .unwrap();
    bytes
}

/// The TOC without what depends on where bytes lie.
pub(crate) fn without_flats(toc: &Toc) -> Toc {
    let mut toc = toc.clone();
    toc.flats.clear();
    for entry in &mut toc.entries {
        if let Kind::File { extents, .. } = &mut entry.kind {
            extents.clear();
        }
    }
    toc
}

fn any_path() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![
        4 => "[abc]".prop_map(String::into_bytes),
        1 => Just(vec![b'n', 0xff, b' ', b'\n', b'=']),
        1 => "x{90,150}".prop_map(String::into_bytes),
    ];
    prop::collection::vec(name, 1..4).prop_map(|names| names.join(&b'/'))
}

fn any_put() -> impl Strategy<Value = Put> {
    let bytes = prop::collection::vec(any::<u8>(), 0..700);
    prop_oneof![
        4 => bytes.prop_map(Put::File),
        2 => (1usize..200_000).prop_map(|n| Put::File([vec![0; n], vec![7; 3]].concat())),
        4 => Just(Put::Directory),
        1 => Just(Put::Opaque),
        2 => any_path().prop_map(Put::Symlink),
        1 => (1u32..4000, 0u32..70000).prop_map(|(a, b)| Put::Device(a, b)),
        1 => Just(Put::Fifo),
        2 => Just(Put::Whiteout),
        3 => any_path().prop_map(Put::Link),
    ]
}

/// Arbitrary items of a layer.
pub(crate) fn any_items() -> impl Strategy<Value = Vec<Item>> {
    let xattrs = prop::collection::btree_map(
        "user\\.[a-z]{1,4}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..40),
        0..3,
    );
    let times = (
        -10_000_000_000i64..10_000_000_000,
        prop_oneof![Just(0u32), 0u32..1_000_000_000],
    );
    let item = (
        any_path(),
        any_put(),
        0u32..0o10000,
        prop_oneof![0u32..3000, any::<u32>()],
        times,
        xattrs,
    );
    let item = item.prop_map(|(path, put, mode, uid, (seconds, nanos), xattrs)| Item {
        path,
        put,
        mode,
        uid,
        mtime: Time { seconds, nanos },
        xattrs,
    });
    prop::collection::vec(item, 0..20)
}

/// An overlay mount that goes away with its directories.
pub(crate) struct Overlay {
    pub(crate) dir: tempfile::TempDir,
    mounted: bool,
}

impl Overlay {
    /// Directories for layers and one mount.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["upper", "work", "merged"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        Self {
            dir,
            mounted: false,
        }
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// Unpacks a layer into a new directory of this name.
    pub(crate) fn unpack(&self, name: &str, toc: &Toc, flats: &FlatFiles) {
        std::fs::create_dir(self.path(name)).unwrap();
        crate::unpack(toc, flats, &self.path(name)).unwrap();
    }

    /// Mounts the layers, the top one first, on `merged`; over them `upper` if it is to be written.
    pub(crate) fn mount(&mut self, layers: &[&str], writable: bool) {
        let layers: Vec<String> = layers
            .iter()
            .map(|l| self.path(l).display().to_string())
            .collect();
        let mut options = format!(
            "lowerdir={},index=off,metacopy=off,redirect_dir=nofollow,xino=off",
            layers.join(":")
        );
        if writable {
            let (upper, work) = (self.path("upper"), self.path("work"));
            options += &format!(",upperdir={},workdir={}", upper.display(), work.display());
        }
        let options = std::ffi::CString::new(options).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount(
            "overlay",
            self.path("merged"),
            "overlay",
            flags,
            options.as_c_str(),
        )
        .unwrap();
        self.mounted = true;
    }

    pub(crate) fn unmount(&mut self) {
        if std::mem::take(&mut self.mounted) {
            let flags = rustix::mount::UnmountFlags::DETACH;
            rustix::mount::unmount(self.path("merged"), flags).unwrap();
        }
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        self.unmount();
    }
}

/// Everything in a directory as the kernel shows it, as one layer over nothing.
pub(crate) fn scan(directory: &std::path::Path, flats: &FlatFiles) -> Toc {
    crate::capture(directory, &crate::Tree::empty(), &[], flats, 2)
        .unwrap()
        .toc
}

/// The tree of one layer.
pub(crate) fn tree(toc: &Toc) -> crate::Tree {
    crate::Tree::merge(&[std::sync::Arc::new(toc.clone())])
}
