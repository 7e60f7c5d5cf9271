//! Layers as EROFS images that hold metadata only: the kernel mounts them, and reads the files' bytes out of the flat files.
//!
//! An image is one lower directory of an overlay: the changes of one layer, or of several neighbours merged into one. Whiteouts
//! are character devices 0:0, opaque directories carry `trusted.overlay.opaque`, and directories that are only passed through
//! repeat what the layers below say of them, since overlayfs takes a directory's attributes from its topmost layer.
//!
//! ```text
//! 0      nothing
//! 1024   superblock                       superblock.rs
//! 1152   device table: the flat files     superblock.rs
//! …      inodes, the root first, each with its attributes, chunk indexes, and (where it fits into the inode's block) its
//!        names or link target             inode.rs, xattr.rs, chunk.rs, layout.rs
//! …      attributes that inodes share     xattr.rs
//! …      directories and link targets     dirent.rs
//! ```
//!
//! Blocks have 512 bytes, because flat files are aligned to that. A file whose bytes lie otherwise (parts of a sparse tar member
//! do) has them copied into a *side file* next to the image. The image is a function of its layers: the same bytes everywhere.
//!
//! Source of the format: `Documentation/filesystems/erofs.rst` and `fs/erofs/erofs_fs.h` of Linux. Nothing is compressed here,
//! and images are never read back: that is the kernel's part, and the tests' (by a reader that is not ours).

mod below;
mod chunk;
mod dirent;
mod inode;
mod layout;
mod side;
mod stack;
mod superblock;
#[cfg(test)]
mod tests;
mod write;
mod xattr;

use std::io;
use std::path::Path;
use std::sync::Arc;

use buildyard_model::FlatId;

use crate::{Entry, ExtentSource, Toc};

pub use below::attributes_below;

/// Bytes in a block.
const BLOCK: u64 = 512;
/// The base-2 logarithm of [`BLOCK`].
const BLOCK_BITS: u32 = 9;

/// What an image needs beside itself, in the order in which it must be given to the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErofsImage {
    /// The flat files that files' bytes lie in.
    pub flats: Vec<FlatId>,
    /// Whether the side file is the last device.
    pub side: bool,
    /// What the root directory looks like.
    pub root: Entry,
    /// The root hides everything below, which overlayfs would not see: nothing may be mounted under this image.
    pub opaque_root: bool,
    /// The image would be the same over any other chain whose root looks like the one of the chain below.
    pub independent: bool,
}

/// Why a chain cannot be shown as an EROFS image.
#[derive(Debug, thiserror::Error)]
pub enum ErofsError {
    /// A hard link to a file that is in no layer below.
    #[error("{path:?} is a hard link to {target:?}, which is in no layer below")]
    LinkTarget {
        /// The link.
        path: String,
        /// What it leads to.
        target: String,
    },
    /// The format has no room for it.
    #[error("{path:?} cannot be in an EROFS image: {reason}")]
    Unfit {
        /// The entry, or the image where no entry is at fault.
        path: String,
        /// What there is no room for.
        reason: &'static str,
    },
    /// Bytes that had to be copied could not be read.
    #[error("cannot read the bytes of {path:?}")]
    Read {
        /// The file.
        path: String,
        /// What failed.
        source: io::Error,
    },
    /// The image or its side file could not be written.
    #[error("cannot write the EROFS image {path:?}")]
    Write {
        /// The file.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Writes the image of `layers` (lowest first, at least one) as they are over `below` (lowest first) to `image`, which must
/// not exist. Bytes that cannot stay where they are go to `side`, which is made only then.
///
/// # Errors
/// See [`ErofsError`]. What was written so far stays: the caller removes it.
pub fn write_erofs(
    layers: &[Arc<Toc>],
    below: &[Arc<Toc>],
    source: &dyn ExtentSource,
    image: &Path,
    side: &Path,
) -> Result<ErofsImage, ErofsError> {
    let stack = stack::Stack::of(layers, below)?;
    let mut side = side::Side::new(side);
    let layout = layout::Layout::of(&stack, source, &mut side)?;
    write::write(&stack, &layout, image).map_err(|source| ErofsError::Write {
        path: image.display().to_string(),
        source,
    })?;
    let root = stack.root();
    Ok(ErofsImage {
        flats: layout.devices.flats().to_vec(),
        side: layout.devices.side().is_some(),
        root: root.entry.clone(),
        opaque_root: root.opaque,
        independent: stack.independent(),
    })
}

fn unfit(path: &[u8], reason: &'static str) -> ErofsError {
    ErofsError::Unfit {
        path: crate::path::show(path),
        reason,
    }
}
