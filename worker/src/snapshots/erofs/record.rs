//! What is kept beside an image: what it needs to be mounted, and what it shows at its root.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use buildyard_layer::erofs::ErofsImage;
use buildyard_layer::{Entry, FlatFiles, NamedRanges, Ranges, Stamp, Time};
use buildyard_model::{FlatId, LayerId};
use serde::{Deserialize, Serialize};

/// The form that is written here. Records of another one count as damaged.
const FORM: u32 = 2;

/// An image's needs and looks. The layer that it counts for is its top one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    form: u32,
    pub(super) layer: LayerId,
    /// The flat files, in the order of the image's table.
    pub(super) flats: Vec<Needed>,
    /// The side file is the last device.
    pub(super) side: bool,
    pub(super) root: Entry,
    /// Nothing below this image is to be seen.
    pub(super) opaque_root: bool,
    /// Bytes of the image and its side file on the disk.
    pub(super) bytes: u64,
}

/// A flat file that an image needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Needed {
    pub(super) flat: FlatId,
    /// The ranges that the image's files lie in, sorted; their bytes were right when the image was made.
    ranges: Vec<Range<u64>>,
    /// What the flat file looked like then.
    stamp: Stamp,
}

impl Needed {
    /// Whether the flat file is still what it was.
    fn is_here(&self, flats: &FlatFiles) -> bool {
        let now = flats.stamp(self.flat);
        now.is_ok_and(|now| now.is_some_and(|now| self.stamp.holds(&now)))
    }

    /// Whether the bytes in `ranges` of the flat file that now has this stamp are those that were right.
    pub(super) fn vouches_for(&self, now: &Stamp, ranges: &[Range<u64>]) -> bool {
        let checked: Ranges = self.ranges.iter().cloned().collect();
        self.stamp.holds(now) && ranges.iter().all(|range| checked.contains(range))
    }

    /// The flat file, open for reading; `None` where it has gone or changed.
    pub(super) fn open(&self, flats: &FlatFiles) -> io::Result<Option<fs::File>> {
        let sparse = self.stamp.is_sparse();
        let path = if sparse {
            flats.sparse_path(self.flat)
        } else {
            flats.path(self.flat)
        };
        let file = match fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let now = Stamp::of(&file.metadata()?, sparse);
        Ok(self.stamp.holds(&now).then_some(file))
    }
}

impl Record {
    /// That of an image made of layers that name these ranges, whose bytes are here and right; `None` where a flat file has
    /// just gone.
    pub(super) fn of(
        layer: LayerId,
        image: ErofsImage,
        named: Vec<NamedRanges>,
        flats: &FlatFiles,
    ) -> io::Result<Option<Self>> {
        let mut ranges: HashMap<FlatId, Vec<Range<u64>>> = HashMap::new();
        for (flat, of_layer) in named.into_iter().flatten() {
            ranges.entry(flat).or_default().extend(of_layer);
        }
        let mut needed = Vec::with_capacity(image.flats.len());
        for flat in image.flats {
            let Some(stamp) = flats.stamp(flat)? else {
                return Ok(None);
            };
            let ranges: Ranges = ranges.remove(&flat).into_iter().flatten().collect();
            needed.push(Needed {
                flat,
                ranges: ranges.as_slice().to_vec(),
                stamp,
            });
        }
        Ok(Some(Self {
            form: FORM,
            layer,
            flats: needed,
            side: image.side,
            root: image.root,
            opaque_root: image.opaque_root,
            bytes: 0,
        }))
    }

    /// Whether every flat file is still what it was when the image was made.
    pub(super) fn is_whole(&self, flats: &FlatFiles) -> bool {
        self.flats.iter().all(|needed| needed.is_here(flats))
    }

    /// What it needs of a flat file.
    pub(super) fn needed(&self, flat: FlatId) -> Option<&Needed> {
        self.flats.iter().find(|needed| needed.flat == flat)
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

    /// Reads it from an image's directory; `None` where it is missing, damaged, or of another version.
    pub(super) fn read(home: &Path) -> Option<Self> {
        let record: Self = postcard::from_bytes(&fs::read(file(home)).ok()?).ok()?;
        (record.form == FORM).then_some(record)
    }
}

fn file(home: &Path) -> PathBuf {
    home.join("record")
}
