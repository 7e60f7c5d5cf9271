//! Snapshots: results made ready to mount.
//!
//! A result is a chain of layers, lowest first. Before a step can run on it, each of its layers must be *present* on
//! this machine in a form that the kernel can mount. A [`Snapshotter`] keeps layers in such a form and says which
//! mounts show a chain as one file system. It mounts nothing itself: the mounts are made by whoever runs the step, in
//! a mount namespace of the step's own, and go away with it.
//!
//! # How to use one
//!
//! ```ignore
//! // 1. Every layer of the chain that is not there yet, lowest first.
//! while let Some(at) = snapshots.missing(&chain) {
//!     let content = LayerContent { toc: &tocs[at], below: &tocs[..at], unpack: &|dir| unpack(&tocs[at], &source, dir) };
//!     snapshots.ensure(&chain[..=at], &content)?;
//! }
//! // 2. A place for what the step changes. Without one, the mounts are read-only.
//! let upper = snapshots.new_upper(&chain)?;
//! // 3. What to mount. As long as `mounts` lives, its layers cannot be removed.
//! let mounts = snapshots.mounts(&chain, Some(&upper))?;
//! // 4. Run the step on it, then make a layer of `upper.dir()`. It goes when `upper` is dropped.
//! ```
//!
//! Between 1 and 3 somebody else may remove a layer (to make room): `mounts` then answers
//! [`SnapshotError::Missing`], and the caller starts again at 1.
//!
//! # What an implementation promises
//!
//! - A layer appears whole or not at all. A program that is killed while it fills one leaves nothing that counts.
//! - Callers who ask for one layer at the same time wait for one fill. If it fails, the next one tries.
//! - What the kernel shows of a chain is what its TOCs say: whiteouts remove, opaque directories hide, a directory that
//!   a layer does not list keeps the owner, mode, times and attributes that it has below, a link to a file of a lower
//!   layer is a link.
//! - Layers are never written to after they were filled.
//!
//! All calls block (they unpack, copy and remove); async callers use `spawn_blocking`.

use std::any::Any;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use buildyard_layer::Toc;
use buildyard_model::LayerId;

mod attributes;
mod below;
mod choice;
mod directories;
mod erofs;
mod gates;
mod home;
mod probe;
#[cfg(test)]
mod suite;
mod sweeper;
mod upper;

pub use choice::{SnapshotterChoice, UnknownSnapshotter, choose};
pub use directories::Directories;
pub(crate) use erofs::ImageClone;
pub use erofs::{ErofsProbeError, ErofsSnapshots, MountedImage, probe_erofs};
pub use probe::{ProbeError, probe};
pub use upper::UpperDir;

/// Keeps layers in a form that can be mounted. See the module's documentation.
pub trait Snapshotter: Send + Sync {
    /// Makes the last layer of `chain` present. Those below it are present already (the form of a layer may depend
    /// on them). Does nothing if it is there.
    fn ensure(&self, chain: &[LayerId], content: &LayerContent<'_>) -> Result<(), SnapshotError>;

    /// The index of the lowest layer of `chain` that must be made present before the chain can be mounted; `None` where it can.
    fn missing(&self, chain: &[LayerId]) -> Option<usize>;

    /// A fresh directory for what a step changes on top of `chain`. Its root carries the attributes of the chain's root.
    fn new_upper(&self, chain: &[LayerId]) -> Result<UpperDir, SnapshotError>;

    /// What to mount, in this order, to show `chain` with `upper` on top; read-only without `upper`. The empty chain
    /// is an empty directory. The layers stay as long as the answer lives.
    fn mounts(&self, chain: &[LayerId], upper: Option<&UpperDir>) -> Result<Mounts, SnapshotError>;

    /// Removes a layer and returns how many bytes that freed. `None` if it is in use or not there.
    fn remove(&self, layer: LayerId) -> Result<Option<u64>, SnapshotError>;

    /// The layers that are present, each with the bytes it occupies on this machine.
    fn holds(&self) -> Vec<(LayerId, u64)>;

    /// Whether files' bytes are read out of the flat files while a chain is mounted. Then those must stay until it is.
    fn reads_flats(&self) -> bool;
}

/// What a layer consists of, as the one who fills it sees it.
pub struct LayerContent<'a> {
    /// The layer's table of contents.
    pub toc: &'a Arc<Toc>,
    /// Those of the layers below it, lowest first.
    pub below: &'a [Arc<Toc>],
    /// Unpacks the layer into an empty directory in overlayfs's form: whiteouts as character devices 0:0, opaque
    /// directories with `trusted.overlay.opaque`. It may make `LinkBelow` entries as copies, or leave them out: the
    /// snapshotter links them. A snapshotter that unpacks nothing does not call it.
    pub unpack: &'a (dyn Fn(&Path) -> Result<(), FillError> + Sync),
}

/// Why a layer could not be unpacked; the one who unpacks knows more about it.
pub type FillError = Box<dyn std::error::Error + Send + Sync>;

/// Mounts to be made in this order, and the hold on what they show.
#[derive(Clone)]
pub struct Mounts {
    /// The mounts. The last one, which has no place of its own, shows the chain.
    pub specs: Vec<MountSpec>,
    holds: Vec<Arc<dyn Any + Send + Sync>>,
}

impl Mounts {
    /// Mounts that depend on nothing that could be removed.
    pub fn unheld(specs: Vec<MountSpec>) -> Self {
        Self {
            specs,
            holds: Vec::new(),
        }
    }
}

impl fmt::Debug for Mounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mounts")
            .field("specs", &self.specs)
            .field("holds", &self.holds.len())
            .finish()
    }
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountSpec {
    /// What is mounted.
    pub source: MountSource,
    /// Where. `None`: at the place that the one who mounts has chosen.
    pub at: Option<PathBuf>,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountSource {
    /// A directory or file of this machine.
    Bind {
        /// The directory or file.
        path: PathBuf,
        /// Refuse writes.
        read_only: bool,
    },
    /// Directories over one another.
    Overlay {
        /// The lower directories, the *top one first*, at least one (two without `upper`).
        lowers: Vec<Lower>,
        /// Where writes go, and overlayfs's work directory beside it. Without it the mount is read-only.
        upper: Option<(PathBuf, PathBuf)>,
    },
    /// An image, which is read-only.
    Image(Arc<MountedImage>),
    /// Memory.
    Tmpfs {
        /// Most bytes it may hold; the kernel's default (half of the memory) without.
        size: Option<u64>,
        /// The mode of its root.
        mode: u32,
    },
}

/// What lies under an overlay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lower {
    /// A directory.
    Directory(PathBuf),
    /// An image's root.
    Image(Arc<MountedImage>),
}

impl MountSpec {
    /// A mount at the place that the one who mounts chooses.
    pub fn new(source: MountSource) -> Self {
        Self { source, at: None }
    }
}

/// Why a snapshot could not be made, mounted or removed.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A layer is not present (any more): fill it and try again.
    #[error("layer {0} is not unpacked on this worker")]
    Missing(LayerId),
    /// The layer's content could not be unpacked.
    #[error("unpacking layer {layer}")]
    Fill {
        /// The layer.
        layer: LayerId,
        /// What the one who unpacks says.
        source: FillError,
    },
    /// A hard link to a file that no lower layer has.
    #[error("layer {layer} has a hard link to {target:?}, which is in no layer below it")]
    LinkTarget {
        /// The layer.
        layer: LayerId,
        /// The target.
        target: String,
    },
    /// The machine refused.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl SnapshotError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What the locks guard is consistent at every point where something could panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
