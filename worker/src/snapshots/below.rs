//! What a layer needs to know of the layers below it: the directories that it does not list but contains entries of,
//! and the files it has hard links to.
//!
//! Overlayfs takes a directory's attributes from the topmost layer that has the directory. So where the layer only
//! passes through a directory, the unpacked layer must repeat what the chain below says.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use buildyard_layer::{Kind, Toc};

use super::attributes::{Attributes, inside};

/// What a layer takes from below.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// Directories that the layer has entries of but does not list, parents first; the root is the empty path.
    pub(super) directories: BTreeSet<Vec<u8>>,
    /// `(path, target)` of links to files below.
    pub(super) links: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Needs {
    /// Reads them off a TOC.
    pub(super) fn of(toc: &Toc) -> Self {
        let listed: BTreeSet<&[u8]> = toc
            .entries
            .iter()
            .filter(|e| is_directory(&e.kind))
            .map(|e| e.path.as_slice())
            .collect();
        let mut needs = Self::default();
        needs.directories.insert(Vec::new());
        for entry in &toc.entries {
            needs.parents(&entry.path);
            if let Kind::LinkBelow { target } = &entry.kind {
                needs.parents(target);
                needs.links.push((entry.path.clone(), target.clone()));
            }
        }
        needs
            .directories
            .retain(|path| !listed.contains(path.as_slice()));
        needs
    }

    fn parents(&mut self, path: &[u8]) {
        for (index, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            if !self.directories.contains(&path[..index]) {
                self.directories.insert(path[..index].to_vec());
            }
        }
    }

    /// Whether the unpacked form is the same over every chain whose root is as no layer describes it.
    pub(super) fn only_the_root(&self) -> bool {
        self.links.is_empty() && self.directories.iter().all(Vec::is_empty)
    }
}

fn is_directory(kind: &Kind) -> bool {
    matches!(kind, Kind::Directory { .. })
}

/// Where `path` is in the lower directories (top first), as the merged view has it.
pub(super) fn find(lowers: &[PathBuf], path: &[u8]) -> io::Result<Option<PathBuf>> {
    for lower in lowers {
        match look(lower, path)? {
            Look::Here(found) => return Ok(Some(found)),
            Look::Hidden => return Ok(None),
            Look::Further => {}
        }
    }
    Ok(None)
}

enum Look {
    Here(PathBuf),
    Hidden,
    Further,
}

/// Looks for `path` in one layer: there, hidden from the layers below by a whiteout, an opaque directory or something
/// that is no directory, or to be looked for further down.
fn look(lower: &Path, path: &[u8]) -> io::Result<Look> {
    let mut opaque = false;
    let ends = path
        .iter()
        .enumerate()
        .filter(|(_, b)| **b == b'/')
        .map(|(i, _)| i)
        .chain([path.len()]);
    for end in ends {
        let here = inside(lower, &path[..end]);
        let metadata = match fs::symlink_metadata(&here) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(if opaque { Look::Hidden } else { Look::Further });
            }
            Err(error) => return Err(error),
        };
        if end == path.len() {
            return Ok(if is_whiteout(&metadata) {
                Look::Hidden
            } else {
                Look::Here(here)
            });
        }
        if !metadata.is_dir() {
            return Ok(Look::Hidden);
        }
        opaque |= is_opaque(&here);
    }
    Ok(Look::Further)
}

fn is_whiteout(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

fn is_opaque(directory: &Path) -> bool {
    let mut value = [0; 2];
    matches!(
        rustix::fs::lgetxattr(directory, c"trusted.overlay.opaque", &mut value[..]),
        Ok(1)
    ) && value[0] == b'y'
}

/// Gives the unpacked layer in `root` the attributes of the directories it passes through, deepest first so that no
/// later change touches a time already set.
pub(super) fn complete_directories(
    root: &Path,
    lowers: &[PathBuf],
    needs: &Needs,
) -> io::Result<()> {
    for path in needs.directories.iter().rev() {
        let here = inside(root, path);
        if !here.is_dir() {
            fs::create_dir_all(&here)?;
        }
    }
    for path in needs.directories.iter().rev() {
        let attributes = match find(lowers, path)? {
            Some(found) if found.is_dir() => Attributes::read(&found)?,
            _ => Attributes::undescribed(),
        };
        attributes.write(&inside(root, path))?;
    }
    Ok(())
}

/// Makes one link to a file below: the file is copied up under its own name, as overlayfs would do, and linked.
/// `false` if no lower layer has the target.
pub(super) fn link(
    root: &Path,
    lowers: &[PathBuf],
    path: &[u8],
    target: &[u8],
) -> io::Result<bool> {
    let copy = inside(root, target);
    if fs::symlink_metadata(&copy).is_err() {
        let Some(found) = find(lowers, target)? else {
            return Ok(false);
        };
        if !fs::symlink_metadata(&found)?.is_file() {
            return Ok(false);
        }
        keeping_parent(&copy, || fs::copy(&found, &copy).map(drop))?;
        Attributes::read(&found)?.write(&copy)?;
    }
    let link = inside(root, path);
    keeping_parent(&link, || match fs::hard_link(&copy, &link) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    })?;
    Ok(true)
}

/// Makes something in a directory without changing the directory's times.
fn keeping_parent(path: &Path, make: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let Some(parent) = path.parent() else {
        return make();
    };
    fs::create_dir_all(parent)?;
    let attributes = Attributes::read(parent)?;
    make()?;
    attributes.write(parent)
}
