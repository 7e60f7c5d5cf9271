//! A snapshotter's directory: what it keeps, what it is making, and the directories of running steps.
//!
//! ```text
//! DIR/boot            the boot under which the kept things were made
//! DIR/KEPT/NAME/      what is kept
//! DIR/making/N/       what is being made, or removed; becomes DIR/KEPT/NAME by rename
//! DIR/uppers/N/       what a running step changes
//! ```
//!
//! Nothing is synced to the disk: snapshots are a cache, and what was made before the machine last booted is dropped.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::IFlags;

use super::attributes::Attributes;
use super::sweeper::Sweeper;
use super::{SnapshotError, UpperDir};

/// The directory.
pub(super) struct Home {
    dir: PathBuf,
    kept: &'static str,
    next: AtomicU64,
    sweeper: Arc<Sweeper>,
}

impl Home {
    /// Opens `dir`, which belongs to one snapshotter alone. Leftovers of an earlier process are removed.
    pub(super) fn open(dir: &Path, kept: &'static str) -> Result<Self, SnapshotError> {
        for name in ["making", "uppers"] {
            empty(&dir.join(name))?;
        }
        spread(&dir.join("uppers"));
        let boot = fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let boot_file = dir.join("boot");
        if fs::read(&boot_file).ok().as_deref() != Some(&boot[..]) {
            empty(&dir.join(kept))?;
            fs::write(&boot_file, &boot).map_err(SnapshotError::io("writing", &boot_file))?;
        }
        for name in [kept, "empty"] {
            let path = dir.join(name);
            fs::create_dir_all(&path)
                .map_err(SnapshotError::io("creating the directory", &path))?;
        }
        Ok(Self {
            dir: fs::canonicalize(dir).map_err(SnapshotError::io("finding", dir))?,
            kept,
            next: AtomicU64::new(0),
            sweeper: Arc::new(
                Sweeper::start().map_err(SnapshotError::io("starting a thread for", dir))?,
            ),
        })
    }

    /// An empty directory: what the empty chain shows.
    pub(super) fn empty(&self) -> PathBuf {
        self.dir.join("empty")
    }

    /// A directory for what a step changes, which looks as its root file system's root does.
    pub(super) fn new_upper(&self, attributes: &Attributes) -> Result<UpperDir, SnapshotError> {
        if is_nearly_full(&self.dir) {
            // What earlier steps left may be the room that this one needs.
            self.sweeper.settle();
        }
        let upper = UpperDir::create(self.upper(), &self.sweeper)?;
        let dir = upper.dir();
        attributes
            .write(&dir)
            .map_err(SnapshotError::io("setting the attributes of", &dir))?;
        Ok(upper)
    }

    /// Where what is kept under `name` is, or would be.
    pub(super) fn kept(&self, name: &str) -> PathBuf {
        self.dir.join(self.kept).join(name)
    }

    /// The names of what is kept. Names that are no text are none of ours.
    pub(super) fn names(&self) -> Result<Vec<String>, SnapshotError> {
        let dir = self.dir.join(self.kept);
        let listing = SnapshotError::io("listing", &dir);
        let names = fs::read_dir(&dir).and_then(|entries| {
            let names = entries.map(|entry| Ok(entry?.file_name().into_string().ok()));
            names.collect::<io::Result<Vec<Option<String>>>>()
        });
        Ok(names.map_err(listing)?.into_iter().flatten().collect())
    }

    /// A place for a step's changes.
    fn upper(&self) -> PathBuf {
        self.fresh("uppers")
    }

    /// A place to make something at, removed when it goes out of use unless it was kept.
    pub(super) fn making(&self) -> Scratch {
        Scratch(self.fresh("making"))
    }

    /// Keeps what was made under `name`.
    pub(super) fn keep(&self, made: &Scratch, name: &str) -> Result<(), SnapshotError> {
        let place = self.kept(name);
        fs::rename(&made.0, &place).map_err(SnapshotError::io("putting in place", &place))
    }

    /// Takes what is kept under `name` away; it is removed when the answer goes out of use.
    pub(super) fn take_away(&self, name: &str) -> Result<Scratch, SnapshotError> {
        let (place, away) = (self.kept(name), self.making());
        fs::rename(&place, &away.0).map_err(SnapshotError::io("removing", &place))?;
        Ok(away)
    }

    fn fresh(&self, kind: &str) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.dir.join(kind).join(number.to_string())
    }
}

/// A directory that is removed when it goes out of use, unless it was renamed away.
pub(super) struct Scratch(pub(super) PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.0.display(), %error, "a directory was left behind");
            }
            _ => {}
        }
    }
}

/// Tells ext4 that what is in `dir` is unrelated, so that it lies all over the disk. A step's directories are there for a moment only,
/// and where ext4 has no journal, it looks at every inode that was deleted nearby in the last minutes before it makes a new one:
/// each step would cost more than the one before. Other file systems do not know the flag.
fn spread(dir: &Path) {
    let told = fs::File::open(dir).map(|dir| {
        let flags = rustix::fs::ioctl_getflags(&dir)?;
        rustix::fs::ioctl_setflags(&dir, flags | IFlags::TOPDIR)
    });
    if !matches!(told, Ok(Ok(()))) {
        tracing::debug!(dir = %dir.display(), "the file system does not spread directories");
    }
}

/// Whether less than a tenth of the disk is free.
fn is_nearly_full(dir: &Path) -> bool {
    let disk = rustix::fs::statvfs(dir);
    disk.is_ok_and(|disk| disk.f_bavail < disk.f_blocks / 10)
}

/// Makes `dir` an empty directory.
fn empty(dir: &Path) -> Result<(), SnapshotError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(SnapshotError::io("clearing", dir)(error));
        }
        _ => {}
    }
    fs::create_dir_all(dir).map_err(SnapshotError::io("creating the directory", dir))
}
