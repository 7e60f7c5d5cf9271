//! Paths in a root file system that is not the worker's: symbolic links lead to where they would lead inside it, and
//! never out of it.
//!
//! [`resolve`] is for trees that nobody changes meanwhile: a container's root before its process. The others hold what they
//! found open.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// More links than this on one path are a loop; the kernel's own limit is 40.
const MOST_LINKS: usize = 255;

/// Where `path` of the tree `root` really is. Components that do not exist are taken as they are.
pub(super) fn resolve(root: &Path, path: &Path) -> io::Result<PathBuf> {
    let mut pending: Vec<OsString> = components(path);
    let mut inside = PathBuf::new();
    let mut links = 0;
    while let Some(name) = pending.pop() {
        if name == ".." {
            inside.pop();
            continue;
        }
        inside.push(&name);
        let Ok(target) = fs::read_link(root.join(&inside)) else {
            continue;
        };
        links += 1;
        if links > MOST_LINKS {
            return Err(io::Error::other(format!(
                "too many symbolic links in {}",
                path.display()
            )));
        }
        inside.pop();
        if target.is_absolute() {
            inside = PathBuf::new();
        }
        pending.extend(components(&target));
    }
    Ok(root.join(inside))
}

/// Opens `path` of the tree `root` for looking and mounting only, wherever links lead in it, also while others change the
/// tree.
pub(super) fn open(root: &Path, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    beneath(
        root,
        path,
        flags,
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )
}

/// Opens a directory of the tree `root` that no link leads to.
pub(super) fn open_directory(root: &Path, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    beneath(
        root,
        path,
        flags,
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )
}

fn beneath(root: &Path, path: &Path, flags: OFlags, how: ResolveFlags) -> io::Result<OwnedFd> {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, directory, Mode::empty())?;
    // The kernel asks to try again where something was renamed at that moment.
    const MOST_TRIES: usize = 100;
    for _ in 1..MOST_TRIES {
        match rustix::fs::openat2(&root, path, flags, Mode::empty(), how) {
            Err(Errno::AGAIN) => {}
            other => return Ok(other?),
        }
    }
    Err(io::Error::other(format!(
        "{} is renamed all the time",
        path.display()
    )))
}

/// The components of a path, last one first, `.` and `/` left out.
fn components(path: &Path) -> Vec<OsString> {
    let names = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    let mut names: Vec<OsString> = names.collect();
    names.reverse();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_stay_inside() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("a/b")).unwrap();
        symlink("/etc", root.path().join("a/out")).unwrap();
        symlink("../../../..", root.path().join("a/up")).unwrap();
        symlink("b", root.path().join("a/near")).unwrap();
        symlink("loop", root.path().join("loop")).unwrap();
        let check = |path: &str, expected: &str| {
            let found = resolve(root.path(), Path::new(path)).unwrap();
            assert_eq!(found, root.path().join(expected), "{path}");
        };
        check("/a/b", "a/b");
        check("/a/near/x", "a/b/x");
        check("a/out/passwd", "etc/passwd");
        check("/a/up/x", "x");
        check("/../../a/./b/..", "a");
        check("/not/there", "not/there");
        assert!(resolve(root.path(), Path::new("/loop/x")).is_err());
    }
}
