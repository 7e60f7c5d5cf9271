//! Writing images and reading them back.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use buildyard_model::FlatId;
use erofs_rs::backend::SliceImage;
use erofs_rs::types::DirentFileType;
use erofs_rs::{EroFS, WalkDirEntry};

use crate::erofs::{ErofsImage, write_erofs};
use crate::{FileReader, FlatFiles, Kind, Toc, Tree};

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) what: What,
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
    pub(super) mtime: (i64, u32),
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Clone, PartialEq, Eq)]
pub(super) enum What {
    File(Vec<u8>),
    Directory { opaque: bool },
    Symlink(Vec<u8>),
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
    Fifo,
}

/// Short, because failing properties print whole trees.
impl std::fmt::Debug for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(bytes) => write!(f, "file of {}", bytes.len()),
            Self::Directory { opaque } => write!(f, "directory, opaque {opaque}"),
            Self::Symlink(target) => write!(f, "link to {}", target.escape_ascii()),
            Self::CharDevice(major, minor) => write!(f, "character device {major}:{minor}"),
            Self::BlockDevice(major, minor) => write!(f, "block device {major}:{minor}"),
            Self::Fifo => f.write_str("pipe"),
        }
    }
}

pub(super) type Paths = BTreeMap<Vec<u8>, Seen>;

/// An image in memory, with its devices.
pub(super) struct Written {
    pub(super) image: ErofsImage,
    pub(super) bytes: Vec<u8>,
    devices: Vec<Vec<u8>>,
}

/// Writes the image of `layers` over `below`.
pub(super) fn written(layers: &[Arc<Toc>], below: &[Arc<Toc>], flats: &FlatFiles) -> Written {
    let dir = tempfile::tempdir().unwrap();
    let (image, side) = (dir.path().join("image"), dir.path().join("side"));
    let described = write_erofs(layers, below, flats, &image, &side).unwrap();
    let mut devices: Vec<Vec<u8>> = described
        .flats
        .iter()
        .map(|flat| padded(&flat_path(flats, *flat)))
        .collect();
    assert_eq!(described.side, side.exists());
    if described.side {
        devices.push(padded(&side));
    }
    let bytes = fs::read(&image).unwrap();
    Written {
        image: described,
        bytes,
        devices,
    }
}

fn flat_path(flats: &FlatFiles, flat: FlatId) -> std::path::PathBuf {
    flats.path(flat)
}

/// The kernel reads zeros behind a file's end, the reader wants them to be there.
fn padded(path: &Path) -> Vec<u8> {
    let mut bytes = fs::read(path).unwrap();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

impl Written {
    /// Reads everything back: what is at each path, and which inode it is with how many links.
    pub(super) fn read(&self) -> (Paths, BTreeMap<Vec<u8>, (u64, u32)>) {
        let devices = self.devices.iter().map(|d| SliceImage::new(d)).collect();
        let image = EroFS::new_with_devices(SliceImage::new(&self.bytes), devices).unwrap();
        let (mut paths, mut inodes) = (Paths::new(), BTreeMap::new());
        let root = image
            .get_inode(image.super_block().root_inode_id())
            .unwrap();
        paths.insert(Vec::new(), seen(&image, root, DirentFileType::Directory));
        inodes.insert(Vec::new(), (root.id(), root.nlink()));
        for entry in image.walk_dir("/").unwrap() {
            let WalkDirEntry {
                dir_entry, inode, ..
            } = entry.unwrap();
            let path = dir_entry.path();
            let path = path.as_bytes().strip_prefix(b"/").unwrap().to_vec();
            let before = paths.insert(path.clone(), seen(&image, inode, dir_entry.file_type()));
            assert!(before.is_none(), "{} twice", path.escape_ascii());
            inodes.insert(path.clone(), (inode.id(), inode.nlink()));
            // Found by name as well as by listing.
            let by_name = image.xattrs(dir_entry.path()).unwrap();
            assert_eq!(by_name, image.xattrs_inode(inode).unwrap());
        }
        (paths, inodes)
    }
}

fn seen(
    image: &EroFS<SliceImage<'_>>,
    inode: erofs_rs::types::Inode,
    listed: DirentFileType,
) -> Seen {
    let mut xattrs = image.xattrs_inode(inode).unwrap();
    let opaque = xattrs.remove(&b"trusted.overlay.opaque"[..]);
    let what = match listed {
        DirentFileType::RegularFile => {
            assert!(inode.is_file());
            let mut bytes = Vec::new();
            let mut file = image.open_inode_file(inode).unwrap();
            file.read_to_end(&mut bytes).unwrap();
            What::File(bytes)
        }
        DirentFileType::Directory => {
            assert!(inode.is_dir());
            assert!(opaque.as_ref().is_none_or(|value| value == b"y"));
            What::Directory {
                opaque: opaque.is_some(),
            }
        }
        DirentFileType::Symlink => {
            What::Symlink(image.read_link_inode(inode).unwrap().as_bytes().to_vec())
        }
        DirentFileType::CharacterDevice => {
            let (major, minor) = inode.device().unwrap();
            What::CharDevice(major, minor)
        }
        DirentFileType::BlockDevice => {
            let (major, minor) = inode.device().unwrap();
            What::BlockDevice(major, minor)
        }
        DirentFileType::Fifo => What::Fifo,
        other => panic!("listed as {other:?}"),
    };
    Seen {
        what,
        mode: inode.permissions().mode() & 0o7777,
        owner: (inode.uid(), inode.gid()),
        mtime: inode.modified_unix(),
        xattrs,
    }
}

/// What the merged view of `layers` has at each path.
pub(super) fn expected(layers: &[Arc<Toc>], flats: &FlatFiles) -> Paths {
    let tree = Tree::merge(layers);
    let owner = |id: u32| if id == u32::MAX { 0 } else { id };
    tree.walk(b"")
        .map(|node| {
            let what = match &node.entry.kind {
                Kind::File { size, extents, .. } => {
                    let mut bytes = Vec::new();
                    let mut reader = FileReader::new(flats, node.flats, *size, extents);
                    reader.read_to_end(&mut bytes).unwrap();
                    What::File(bytes)
                }
                Kind::Directory { .. } => What::Directory { opaque: false },
                Kind::Symlink { target } => What::Symlink(target.clone()),
                Kind::CharDevice { major, minor } => What::CharDevice(*major, *minor),
                Kind::BlockDevice { major, minor } => What::BlockDevice(*major, *minor),
                Kind::Fifo => What::Fifo,
                Kind::Whiteout | Kind::LinkBelow { .. } => panic!("in a merged tree"),
            };
            let seen = Seen {
                what,
                mode: node.entry.mode,
                owner: (owner(node.entry.uid), owner(node.entry.gid)),
                mtime: (node.entry.mtime.seconds, node.entry.mtime.nanos),
                xattrs: node.entry.xattrs.clone(),
            };
            (node.path.to_vec(), seen)
        })
        .collect()
}

/// What overlayfs makes of two lower directories.
pub(super) fn over(lower: &Paths, upper: &Paths) -> Paths {
    let whiteout = What::CharDevice(0, 0);
    let hides = |path: &[u8]| match upper.get(path).map(|seen| &seen.what) {
        Some(What::Directory { opaque }) => *opaque,
        other => other.is_some(),
    };
    let hidden = |path: &[u8]| {
        upper.contains_key(path) || crate::tree::ancestors(path).any(hides) || hides(b"")
    };
    let mut paths: Paths = lower
        .iter()
        .filter(|(path, _)| !hidden(path))
        .map(|(path, seen)| (path.clone(), seen.clone()))
        .collect();
    for (path, seen) in upper {
        let mut seen = seen.clone();
        if let What::Directory { opaque } = &mut seen.what {
            *opaque = false;
        }
        if seen.what != whiteout {
            paths.insert(path.clone(), seen);
        }
    }
    paths
}
