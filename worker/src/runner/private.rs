//! Mounts in a mount namespace of their own.
//!
//! Everything that mounts runs on a thread that has left the process's mount namespace. Its mounts, and those of the
//! programs it starts, are invisible elsewhere, and the kernel takes them away when the thread and those programs have
//! ended, whether they returned, panicked or were killed with the whole process. So there is nothing to unmount and no
//! leftover to sweep.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use crate::snapshots::{ImageClone, Lower, MountSource, MountSpec, MountedImage};

/// Runs `work` on a thread with a mount namespace of its own and waits for it.
pub(crate) fn run<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let thread = thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || enter().map(|()| work()))?;
    thread
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
}

/// Moves the calling thread into a new mount namespace in which nothing reaches the old one.
pub(crate) fn enter() -> io::Result<()> {
    #[allow(unsafe_code)]
    // SAFETY: only `UnshareFlags::FILES` endangers other threads; the mount namespace, and with it the root and current
    // directory, are this thread's alone afterwards.
    unsafe {
        rustix::thread::unshare_unsafe(UnshareFlags::NEWNS)?;
    }
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private)?;
    Ok(())
}

/// Moves the calling thread into a mount namespace that is there already.
pub(crate) fn enter_existing(namespace: &fs::File) -> io::Result<()> {
    #[allow(unsafe_code)]
    // SAFETY: only `UnshareFlags::FILES` endangers other threads; root and current directory are this thread's alone
    // afterwards, which the kernel wants before it changes the namespace.
    unsafe {
        rustix::thread::unshare_unsafe(UnshareFlags::FS)?;
    }
    let kind = Some(LinkNameSpaceType::Mount);
    rustix::thread::move_into_link_name_space(namespace.as_fd(), kind)?;
    Ok(())
}

/// Makes mounts in order; those without a place of their own at `target`.
pub(crate) fn mount_all(specs: &[MountSpec], target: &Path) -> io::Result<()> {
    specs.iter().try_for_each(|spec| mount(spec, target))
}

/// Makes one mount, at its own place or at `target`. To be called on a thread that has [`enter`]ed its own namespace:
/// the thread's current directory changes.
pub(crate) fn mount(spec: &MountSpec, target: &Path) -> io::Result<()> {
    let target = spec.at.as_deref().unwrap_or(target);
    match &spec.source {
        MountSource::Bind { path, read_only } => bind(path, target, *read_only),
        MountSource::Overlay { lowers, upper } => overlay(lowers, upper.as_ref(), target),
        MountSource::Image(image) => image.attach(target),
        MountSource::Tmpfs { size, mode } => tmpfs(*size, *mode, target),
    }
}

pub(crate) fn bind(path: &Path, target: &Path, read_only: bool) -> io::Result<()> {
    rustix::mount::mount_bind_recursive(path, target)?;
    if read_only {
        let flags = MountFlags::BIND | MountFlags::RDONLY;
        rustix::mount::mount_remount(target, flags, c"")?;
    }
    Ok(())
}

/// Makes a file a mount of its own that can only be read: not written, not executed, no device.
pub(crate) fn seal(file: &Path) -> io::Result<()> {
    rustix::mount::mount_bind(file, file)?;
    let no = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount_remount(file, MountFlags::BIND | no, c"")?;
    Ok(())
}

fn tmpfs(size: Option<u64>, mode: u32, target: &Path) -> io::Result<()> {
    let size = size
        .map(|bytes| format!(",size={bytes}"))
        .unwrap_or_default();
    let options = CString::new(format!("mode={mode:o}{size}"))?;
    rustix::mount::mount(
        "tmpfs",
        target,
        "tmpfs",
        MountFlags::NOSUID,
        options.as_c_str(),
    )?;
    Ok(())
}

/// `mount(2)` takes one page of options. With a one-word name for each lower, 500 of them (overlayfs's own limit) fit on every
/// kernel, and no character of a path needs quoting. Images are attached under their names only while the overlay is mounted:
/// it keeps mounts of its own.
fn overlay(lowers: &[Lower], upper: Option<&(PathBuf, PathBuf)>, target: &Path) -> io::Result<()> {
    let target = fs::canonicalize(target)?;
    let names = Names::new(target.parent().unwrap_or(&target))?;
    let images = lowers.iter().filter_map(|lower| match lower {
        Lower::Image(image) => Some(&**image),
        Lower::Directory(_) => None,
    });
    let mut clones = MountedImage::clones(&images.collect::<Vec<_>>())?.into_iter();
    let mut options = String::from("index=off,metacopy=off,redirect_dir=nofollow,xino=off");
    if let Some((upper, work)) = upper {
        names.link(upper, "u")?;
        names.link(work, "w")?;
        options.push_str(",upperdir=u,workdir=w");
    }
    let mut separator = ",lowerdir=";
    for (number, lower) in lowers.iter().enumerate() {
        let name = number.to_string();
        match lower {
            Lower::Directory(directory) => names.link(directory, &name)?,
            Lower::Image(_) => names.attach(clones.next(), &name)?,
        }
        options.push_str(separator);
        options.push_str(&name);
        separator = ":";
    }
    let result = match upper {
        None => mount_overlay(&target, &options, MountFlags::RDONLY),
        Some(_) => mount_writable(&target, options),
    };
    result.map_err(|errno| describe(errno, lowers, upper))
}

/// What a step wrote need not outlive a crash of the machine: unmounting `volatile` does not write it, and all else that waits
/// to be written to that disk, out first. Kernels before 5.10 do not know the option.
fn mount_writable(target: &Path, options: String) -> rustix::io::Result<()> {
    match mount_overlay(target, &format!("{options},volatile"), MountFlags::empty()) {
        Err(Errno::INVAL) => mount_overlay(target, &options, MountFlags::empty()),
        other => other,
    }
}

fn mount_overlay(target: &Path, options: &str, flags: MountFlags) -> rustix::io::Result<()> {
    let options = CString::new(options).map_err(|_| Errno::INVAL)?;
    rustix::mount::mount("overlay", target, "overlay", flags, options.as_c_str())
}

/// Short names for what an overlay is made of, in memory; the thread's current directory as long as this lives.
struct Names {
    dir: tempfile::TempDir,
}

impl Names {
    /// Makes the place for them beside what is to be mounted: a step's root lies in memory, where no disk has to be waited for.
    fn new(beside: &Path) -> io::Result<Self> {
        let mut dir = tempfile::Builder::new();
        let dir = dir.prefix("by-overlay-").tempdir_in(beside)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        rustix::mount::mount("tmpfs", dir.path(), "tmpfs", flags, c"mode=700")?;
        let names = Self { dir };
        std::env::set_current_dir(names.dir.path())?;
        Ok(names)
    }

    fn link(&self, directory: &Path, name: &str) -> io::Result<()> {
        rustix::fs::symlink(directory.as_os_str().as_bytes(), name)?;
        Ok(())
    }

    fn attach(&self, image: Option<ImageClone>, name: &str) -> io::Result<()> {
        let image = image.ok_or_else(|| io::Error::other("an image has no mount"))?;
        let place = self.dir.path().join(name);
        fs::create_dir(&place)?;
        image.attach(&place)
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        // One call for the memory with all that is attached in it: each one waits for all processors.
        let left = std::env::set_current_dir("/");
        let gone = rustix::mount::unmount(self.dir.path(), UnmountFlags::DETACH);
        if let Err(error) = left.and(gone.map_err(io::Error::from)) {
            tracing::warn!(%error, dir = %self.dir.path().display(), "a directory was left behind");
        }
    }
}

fn describe(
    errno: rustix::io::Errno,
    lowers: &[Lower],
    upper: Option<&(PathBuf, PathBuf)>,
) -> io::Error {
    let error = io::Error::from(errno);
    let upper = upper.map_or(String::from("no upper directory"), |(upper, _)| {
        upper.display().to_string()
    });
    tracing::debug!(%error, lowers = lowers.len(), upper, "overlayfs refused a mount");
    error
}
