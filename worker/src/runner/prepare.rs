//! What is made ready for a container on its own thread: mounts, files that exist in memory only, the working
//! directory, and the list of mount points that the root file system lacks.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

use super::config::ReadyMount;
use super::spec::{ContainerMount, ContainerSource, ContainerSpec, User};
use super::{RunnerError, private, scoped};
use crate::snapshots::{MountSource, MountSpec};

/// Mounts memory at `dir` for everything of the container that must not touch a disk, then, in it, the root file
/// system (at `dir/root`) and the sources of the other mounts.
pub(super) fn mounts(spec: &ContainerSpec, dir: &Path) -> Result<Vec<ReadyMount>, RunnerError> {
    let memory = MountSpec::new(MountSource::Tmpfs {
        size: None,
        mode: 0o711,
    });
    private::mount(&memory, dir).map_err(RunnerError::prepare(format!(
        "mounting memory at {}",
        dir.display()
    )))?;
    let root = dir.join("root");
    make_dir(&root)?;
    private::mount_all(&spec.root.specs, &root)
        .map_err(RunnerError::prepare("mounting the step's root file system"))?;

    let mut ready = Vec::with_capacity(spec.mounts.len() + 2);
    for (name, contents) in [("hosts", &spec.hosts), ("resolv.conf", &spec.resolv_conf)] {
        let file = dir.join(name);
        write_file(&file, contents.as_bytes(), 0o644, 0, 0).map_err(RunnerError::prepare(
            format!("writing the step's /etc/{name}"),
        ))?;
        private::bind(&file, &file, true).map_err(RunnerError::prepare(format!(
            "protecting the step's /etc/{name}"
        )))?;
        ready.push(ReadyMount {
            source: text(&file),
            destination: format!("/etc/{name}"),
        });
    }
    for (number, mount) in spec.mounts.iter().enumerate() {
        let source = source(mount, &dir.join(number.to_string()))
            .and_then(|source| protect(source, mount.read_only))
            .map_err(RunnerError::prepare(format!(
                "making ready what is mounted at {}",
                mount.destination
            )))?;
        ready.push(ReadyMount {
            source: text(&source),
            destination: mount.destination.clone(),
        });
    }
    Ok(ready)
}

/// Makes what is mounted read-only here already: in a user namespace the runtime may not change a mount's flags.
fn protect(source: PathBuf, read_only: bool) -> io::Result<PathBuf> {
    if read_only {
        private::bind(&source, &source, true)?;
    }
    Ok(source)
}

/// Makes the source of one mount at `place` and returns its path.
fn source(mount: &ContainerMount, place: &Path) -> io::Result<PathBuf> {
    match &mount.source {
        ContainerSource::Secret {
            contents,
            mode,
            uid,
            gid,
        } => {
            write_file(place, contents, *mode, *uid, *gid)?;
            private::seal(place)?;
            Ok(place.to_owned())
        }
        ContainerSource::Directory(path) => Ok(path.clone()),
        ContainerSource::Snapshot { mounts, selector } => {
            fs::create_dir(place)?;
            private::mount_all(&mounts.specs, place)?;
            selected(place, selector)
        }
        ContainerSource::Tmpfs(size) => {
            fs::create_dir(place)?;
            let spec = MountSpec::new(MountSource::Tmpfs {
                size: *size,
                mode: 0o1777,
            });
            private::mount(&spec, place)?;
            Ok(place.to_owned())
        }
    }
}

/// A path of what is mounted at `place`, as a mount of its own beside it: a name in a tree that another step writes to (a
/// shared cache mount) could lead anywhere by the time it is used.
fn selected(place: &Path, selector: &str) -> io::Result<PathBuf> {
    if selector.trim_matches('/').is_empty() {
        return Ok(place.to_owned());
    }
    let found = scoped::open(place, Path::new(selector)).map_err(|error| {
        let missing = error.kind() == io::ErrorKind::NotFound;
        if missing {
            io::Error::new(error.kind(), format!("{selector:?} not found"))
        } else {
            error
        }
    })?;
    let target = place.with_extension("selected");
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode);
    if kind.is_dir() {
        fs::create_dir(&target)?;
    } else {
        fs::write(&target, [])?;
    }
    let source = PathBuf::from(format!("/proc/self/fd/{}", found.as_raw_fd()));
    private::bind(&source, &target, false)?;
    Ok(target)
}

fn write_file(file: &Path, contents: &[u8], mode: u32, uid: u32, gid: u32) -> io::Result<()> {
    fs::write(file, contents)?;
    chown(file, Some(uid), Some(gid))?;
    fs::set_permissions(file, Permissions::from_mode(mode))
}

fn make_dir(path: &Path) -> Result<(), RunnerError> {
    fs::create_dir(path).map_err(RunnerError::prepare(format!("creating {}", path.display())))
}

/// Paths of the worker's own making are text: the data directory's is checked when it is opened.
fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Makes the working directory, and what leads to it, if it doesn't exist; it then belongs to the user.
pub(super) fn working_directory(root: &Path, cwd: &str, user: &User) -> io::Result<()> {
    let place = scoped::resolve(root, Path::new(cwd))?;
    let mut missing: Vec<&Path> = place
        .ancestors()
        .take_while(|path| !path.exists())
        .collect();
    while let Some(path) = missing.pop() {
        fs::create_dir(path)?;
        chown(path, Some(user.uid), Some(user.gid))?;
        fs::set_permissions(path, Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// Mount points that the root file system lacks: the runtime makes them, and they are no part of what the step did.
#[derive(Debug)]
pub(super) struct Stubs {
    root: PathBuf,
    /// Deepest first.
    missing: Vec<PathBuf>,
}

impl Stubs {
    /// Looks which of the mount points don't exist.
    pub(super) fn find(root: &Path, mounts: &[ReadyMount]) -> Self {
        let mut missing = Vec::new();
        for mount in mounts {
            let Ok(place) = scoped::resolve(root, Path::new(&mount.destination)) else {
                continue;
            };
            let absent = |path: &&Path| *path != root && fs::symlink_metadata(path).is_err();
            missing.extend(place.ancestors().take_while(absent).map(Path::to_owned));
        }
        missing.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
        missing.dedup();
        Self {
            root: root.to_owned(),
            missing,
        }
    }

    /// Removes those that are still empty, keeping the times of the directories they are in. Returns the removed ones
    /// relative to the root.
    pub(super) fn remove(self) -> Vec<Vec<u8>> {
        let mut removed = Vec::new();
        for path in &self.missing {
            match remove_empty(&self.root, path) {
                Ok(true) => {
                    let relative = path.strip_prefix(&self.root).unwrap_or(path);
                    removed.push(relative.as_os_str().as_bytes().to_vec());
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "a mount point was left in a step's result")
                }
            }
        }
        removed
    }
}

/// Whether `path` of the tree `root` was an empty file or directory, which it then is no more. The container's processes are
/// gone, and may have left links behind: none is followed.
fn remove_empty(root: &Path, path: &Path) -> io::Result<bool> {
    let inside = path.strip_prefix(root).map_err(io::Error::other)?;
    let (Some(above), Some(name)) = (inside.parent(), inside.file_name()) else {
        return Ok(false);
    };
    let parent = match scoped::open_directory(root, above) {
        Ok(parent) => parent,
        // What led there is no longer there, or leads elsewhere.
        Err(error) if is_elsewhere(&error) => return Ok(false),
        Err(error) => return Err(error),
    };
    let Ok(found) = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) else {
        return Ok(false);
    };
    let before = rustix::fs::fstat(&parent)?;
    let removed = match FileType::from_raw_mode(found.st_mode) {
        FileType::Directory => rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR),
        FileType::RegularFile if found.st_size == 0 => {
            rustix::fs::unlinkat(&parent, name, AtFlags::empty())
        }
        _ => return Ok(false),
    };
    match removed {
        Ok(()) => {}
        Err(Errno::NOTEMPTY) => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: before.st_mtime,
            tv_nsec: before.st_mtime_nsec as _,
        },
    };
    rustix::fs::futimens(&parent, &times)?;
    Ok(true)
}

fn is_elsewhere(error: &io::Error) -> bool {
    let numbers = [libc::ENOENT, libc::ENOTDIR, libc::ELOOP, libc::EXDEV];
    error
        .raw_os_error()
        .is_some_and(|number| numbers.contains(&number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshots::Mounts;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_was_selected_cannot_be_swapped() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, out) = (dir.path().join("tree"), dir.path().join("out"));
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::create_dir_all(out.join("b")).unwrap();
        fs::write(tree.join("a/b/file"), "inside").unwrap();
        fs::write(out.join("b/file"), "outside").unwrap();
        let place = dir.path().join("place");
        let read = private::run("test", move || {
            let source = MountSource::Bind {
                path: tree.clone(),
                read_only: false,
            };
            let mount = ContainerMount {
                destination: "/src".to_owned(),
                source: ContainerSource::Snapshot {
                    mounts: Mounts::unheld(vec![MountSpec::new(source)]),
                    selector: "a/b".to_owned(),
                },
                read_only: false,
            };
            let ready = super::source(&mount, &place).unwrap();
            // Another step that has the tree too.
            fs::rename(tree.join("a"), tree.join("gone")).unwrap();
            symlink(&out, tree.join("a")).unwrap();
            fs::read_to_string(ready.join("file")).unwrap()
        });
        assert_eq!(read.unwrap(), "inside");
    }

    #[test]
    fn stubs_are_removed_and_nothing_that_a_link_leads_to() {
        let dir = tempfile::tempdir().unwrap();
        let (root, out) = (dir.path().join("root"), dir.path().join("out"));
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::create_dir_all(out.join("empty")).unwrap();
        let mount = |destination: &str| ReadyMount {
            source: String::new(),
            destination: destination.to_owned(),
        };
        let mounts = ["/etc/hosts", "/x/empty", "/x/full", "/y"].map(mount);
        let stubs = Stubs::find(&root, &mounts);
        // What the runner and then the step did.
        fs::write(root.join("etc/hosts"), []).unwrap();
        fs::create_dir(root.join("y")).unwrap();
        fs::write(root.join("y/written"), []).unwrap();
        symlink(&out, root.join("x")).unwrap();
        assert_eq!(stubs.remove(), [b"etc/hosts".to_vec()]);
        assert!(out.join("empty").exists());
        assert!(root.join("y/written").exists());
    }
}
