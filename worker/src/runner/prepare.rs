//! What is made ready for a container on its own thread: mounts, files that exist in memory only, the working
//! directory, and the list of mount points that the root file system lacks.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT};

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
            let selected = scoped::resolve(place, Path::new(selector))?;
            fs::symlink_metadata(&selected).map_err(|error| {
                let missing = error.kind() == io::ErrorKind::NotFound;
                if missing {
                    io::Error::new(error.kind(), format!("{selector:?} not found"))
                } else {
                    error
                }
            })?;
            Ok(selected)
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
            match remove_empty(path) {
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

/// Whether `path` was an empty file or directory, which it then is no more.
fn remove_empty(path: &Path) -> io::Result<bool> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Ok(false);
    };
    let empty = match metadata.is_dir() {
        true => fs::read_dir(path)?.next().is_none(),
        false => metadata.is_file() && metadata.size() == 0,
    };
    let Some(parent) = path.parent().filter(|_| empty) else {
        return Ok(false);
    };
    let before = fs::metadata(parent)?;
    if metadata.is_dir() {
        fs::remove_dir(path)?
    } else {
        fs::remove_file(path)?
    }
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: before.mtime(),
            tv_nsec: before.mtime_nsec(),
        },
    };
    rustix::fs::utimensat(CWD, parent, &times, AtFlags::empty())?;
    Ok(true)
}
