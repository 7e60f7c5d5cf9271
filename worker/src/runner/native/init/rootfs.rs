//! The container's root: everything mounted where it belongs, the machine's file systems out of sight.
//!
//! Mount points lie in a tree that an image and other running steps (by a shared cache mount) have a say in. So a path is
//! first resolved as it would be inside, and then walked once more, component by component, through directories that are
//! held open and without following any link: what was swapped meanwhile is an error, not a way out.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};

use super::{InitError, Result, devices, prepare};
use crate::runner::native::plan::{FileSystem, Plan, Planned, What};
use crate::runner::native::sys;
use crate::runner::scoped;

/// The only places in `/proc` where something may be mounted: files that tell of the machine, and are told otherwise by
/// whoever mounts there. Anywhere else a mount could take the place of what is hidden or read-only.
const IN_PROC: [&str; 9] = [
    "proc/cpuinfo",
    "proc/diskstats",
    "proc/meminfo",
    "proc/stat",
    "proc/swaps",
    "proc/uptime",
    "proc/loadavg",
    "proc/slabinfo",
    "proc/net/dev",
];

/// Makes all mounts and moves into the root. Returns the container's `/dev/null`.
pub(super) fn enter(plan: &Plan) -> Result<OwnedFd> {
    let root_path = Path::new(&plan.root);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = rustix::fs::open(root_path, flags, Mode::empty())
        .map_err(prepare("opening the root file system"))?;
    let place = Root {
        path: root_path,
        directory: root.as_fd(),
    };
    let mut null = None;
    for mount in &plan.mounts {
        let mounted = place.mount(mount)?;
        if let (Some(mounted), "/dev") = (mounted, mount.at.as_str()) {
            null = Some(devices::fill(mounted.as_fd())?);
        }
    }
    let null = null.ok_or_else(|| {
        InitError::Command("error during container init: nothing was mounted at /dev".to_owned())
    })?;
    pivot(root.as_fd())?;
    if plan.read_only_root {
        let root = open_path("/").map_err(prepare("opening /"))?;
        sys::set_mount_attributes(root.as_fd(), sys::READ_ONLY, false)
            .map_err(prepare("making the root file system read-only"))?;
    }
    Ok(null)
}

/// Makes the new root the only one.
fn pivot(root: BorrowedFd<'_>) -> Result<()> {
    rustix::process::fchdir(root).map_err(prepare("entering the root file system"))?;
    // The old root ends up on top of the new one, from where it is taken away with all that is mounted on it.
    rustix::process::pivot_root(".", ".").map_err(prepare("changing the root file system"))?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)
        .map_err(prepare("leaving the machine's file systems"))?;
    rustix::process::chdir("/").map_err(prepare("entering /"))
}

/// Opens a path of this process's root for looking and mounting only. No component of it may be a link.
pub(super) fn open_path(path: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(
        CWD,
        path,
        flags,
        Mode::empty(),
        resolve,
    )?)
}

/// Attaches a mount that is attached nowhere yet.
pub(super) fn attach(mount: BorrowedFd<'_>, place: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, "", place, "", flags)?)
}

/// A copy of the mount that `from` is on, beginning at `from`, attached nowhere.
pub(super) fn copy(from: BorrowedFd<'_>, below: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, below);
    Ok(rustix::mount::open_tree(from, "", flags)?)
}

/// A new file system, attached nowhere.
pub(super) fn make(system: &FileSystem) -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(system.kind.as_str(), FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(context.as_fd(), "source", system.source.as_str())?;
    for (name, value) in &system.options {
        match value {
            Some(value) => {
                rustix::mount::fsconfig_set_string(context.as_fd(), name.as_str(), value.as_str())?;
            }
            None => rustix::mount::fsconfig_set_flag(context.as_fd(), name.as_str())?,
        }
    }
    rustix::mount::fsconfig_create(context.as_fd())?;
    let attributes = u32::try_from(system.attributes).map_err(io::Error::other)?;
    let attributes = MountAttrFlags::from_bits_retain(attributes);
    Ok(rustix::mount::fsmount(
        context.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        attributes,
    )?)
}

/// A root that is not this process's own yet.
struct Root<'a> {
    path: &'a Path,
    directory: BorrowedFd<'a>,
}

impl Root<'_> {
    /// Makes one mount. Returns its root where it is a new file system.
    fn mount(&self, mount: &Planned) -> Result<Option<OwnedFd>> {
        let failed = || prepare(format!("mounting at {}", mount.at));
        match &mount.what {
            What::FileSystem(system) => {
                let made = make(system).map_err(failed())?;
                let place = self
                    .place(&mount.at, true, Place::of(&system.kind))
                    .map_err(failed())?;
                attach(made.as_fd(), place.as_fd()).map_err(failed())?;
                Ok(Some(made))
            }
            What::Bind(source) => {
                self.bind(source, &mount.at).map_err(failed())?;
                Ok(None)
            }
            What::Groups {
                memory,
                views,
                links,
                attributes,
            } => {
                let made = make(memory).map_err(failed())?;
                let place = self
                    .place(&mount.at, true, Place::Plain)
                    .map_err(failed())?;
                attach(made.as_fd(), place.as_fd()).map_err(failed())?;
                show_groups(made.as_fd(), views, links, *attributes).map_err(failed())?;
                Ok(Some(made))
            }
        }
    }

    /// Shows a path of the stage, with what is mounted below it, at a place of its kind.
    fn bind(&self, source: &str, at: &str) -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let source = rustix::fs::open(source, flags, Mode::empty())?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&source)?.st_mode);
        let copied = copy(source.as_fd(), true)?;
        let place = self.place(at, kind.is_dir(), Place::Any)?;
        attach(copied.as_fd(), place.as_fd())
    }

    /// Opens a mount point, which is made if it is not there.
    fn place(&self, at: &str, directory: bool, which: Place) -> io::Result<OwnedFd> {
        let resolved = scoped::resolve(self.path, Path::new(at))?;
        let inside = resolved.strip_prefix(self.path).map_err(io::Error::other)?;
        match which {
            Place::Plain if inside != Path::new(at.trim_start_matches('/')) => {
                return Err(io::Error::other("it is not an ordinary directory there"));
            }
            Place::Any
                if inside.starts_with("proc")
                    && !IN_PROC.iter().any(|name| inside == Path::new(name)) =>
            {
                return Err(io::Error::other("nothing can be mounted inside /proc"));
            }
            _ => {}
        }
        let names: Vec<&Path> = inside
            .components()
            .filter_map(|component| match component {
                Component::Normal(name) => Some(Path::new(name)),
                _ => None,
            })
            .collect();
        if names.is_empty() {
            return Err(io::Error::other("that is the root itself"));
        }
        let mut place = self.directory.try_clone_to_owned()?;
        for (index, name) in names.iter().enumerate() {
            let is_directory = directory || index + 1 < names.len();
            place = open_or_make(place.as_fd(), name, is_directory)?;
        }
        Ok(place)
    }
}

/// Opens a name of a directory without following a link, making it first if it is not there.
fn open_or_make(parent: BorrowedFd<'_>, name: &Path, directory: bool) -> io::Result<OwnedFd> {
    let mut flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    flags.set(OFlags::DIRECTORY, directory);
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let open = || rustix::fs::openat2(parent, name, flags, Mode::empty(), resolve);
    match open() {
        Err(Errno::NOENT) => {}
        other => return Ok(other?),
    }
    let mode = Mode::from_raw_mode(0o755);
    let made = if directory {
        rustix::fs::mkdirat(parent, name, mode)
    } else {
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
        rustix::fs::openat(parent, name, flags, mode).map(drop)
    };
    match made {
        Ok(()) | Err(Errno::EXIST) => Ok(open()?),
        Err(error) => Err(error.into()),
    }
}

/// What a mount point may be.
#[derive(Clone, Copy)]
enum Place {
    /// Where its name says, without a link on the way: for file systems that show the kernel's state.
    Plain,
    /// Wherever links in the root lead, but not inside `/proc`.
    Any,
}

impl Place {
    fn of(kind: &str) -> Self {
        match kind {
            "proc" | "sysfs" => Self::Plain,
            _ => Self::Any,
        }
    }
}

fn show_groups(
    memory: BorrowedFd<'_>,
    views: &[(String, String)],
    links: &[(String, String)],
    attributes: u64,
) -> io::Result<()> {
    for (name, source) in views {
        let place = open_or_make(memory, Path::new(name), true)?;
        let source = rustix::fs::open(
            source.as_str(),
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let view = copy(source.as_fd(), false)?;
        sys::set_mount_attributes(view.as_fd(), attributes, false)?;
        attach(view.as_fd(), place.as_fd())?;
    }
    for (name, target) in links {
        rustix::fs::symlinkat(target.as_str(), memory, name.as_str())?;
    }
    // As the directory of sysfs that it lies on.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(memory, ".", flags, Mode::empty())?;
    rustix::fs::fchmod(directory, Mode::from_raw_mode(0o555))?;
    // The mount alone: it is memory without a limit for whoever may write to it.
    sys::set_mount_attributes(memory, attributes & sys::READ_ONLY, false)
}
