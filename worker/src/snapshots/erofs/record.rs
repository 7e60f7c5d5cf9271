//! What is kept beside an image: what it needs to be mounted, and what it shows at its root.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use buildyard_layer::erofs::ErofsImage;
use buildyard_layer::{Entry, Time, Toc, ranges_of};
use buildyard_model::{FlatId, LayerId};
use serde::{Deserialize, Serialize};

/// An image's needs and looks. The layer that it counts for is its top one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) layer: LayerId,
    /// The flat files, in the order of the image's table, with the ranges that must be there.
    pub(super) flats: Vec<(FlatId, Vec<Range<u64>>)>,
    /// The side file is the last device.
    pub(super) side: bool,
    pub(super) root: Entry,
    /// Nothing below this image is to be seen.
    pub(super) opaque_root: bool,
    /// Bytes of the image and its side file on the disk.
    pub(super) bytes: u64,
}

impl Record {
    /// That of the image of `layers`.
    pub(super) fn of<'t>(
        layer: LayerId,
        image: ErofsImage,
        layers: impl Iterator<Item = &'t Toc>,
    ) -> Self {
        let named: Vec<_> = layers.flat_map(ranges_of).collect();
        let ranges = |flat: &FlatId| {
            let of_flat = named.iter().filter(|(id, _)| id == flat);
            of_flat.flat_map(|(_, ranges)| ranges.clone()).collect()
        };
        Self {
            layer,
            flats: image
                .flats
                .iter()
                .map(|flat| (*flat, ranges(flat)))
                .collect(),
            side: image.side,
            root: image.root,
            opaque_root: image.opaque_root,
            bytes: 0,
        }
    }

    /// Whether the root looks like that of a chain in which no layer describes it.
    pub(super) fn has_plain_root(&self) -> bool {
        let Entry {
            mode,
            uid,
            gid,
            mtime,
            xattrs,
            ..
        } = &self.root;
        (*mode, *uid, *gid, *mtime) == (0o755, 0, 0, Time::default()) && xattrs.is_empty()
    }

    /// Writes it to the image's directory.
    pub(super) fn write(&self, home: &Path) -> io::Result<()> {
        let bytes = postcard::to_allocvec(self).map_err(io::Error::other)?;
        fs::write(file(home), bytes)
    }

    /// Reads it from an image's directory; `None` where it is missing or damaged.
    pub(super) fn read(home: &Path) -> Option<Self> {
        postcard::from_bytes(&fs::read(file(home)).ok()?).ok()
    }
}

fn file(home: &Path) -> PathBuf {
    home.join("record")
}
