//! The flat files that are on this machine, in one directory.
//!
//! A whole flat file is `ab/<id>`; it is written under `tmp/` and renamed, so it is complete or not there. A sparse
//! copy, of which only some ranges are here, is `ab/<id>.part` with its known ranges in `ab/<id>.ranges` (see
//! `sparse`). Nothing here decides what is kept: that is the garbage collector's business.

mod room;
mod shared;
mod sparse;
mod stamp;
mod writer;

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use buildyard_model::FlatId;

pub use room::Room;
pub use shared::FlatWatcher;
pub use stamp::Stamp;
pub(crate) use writer::read_full;
pub use writer::{Appended, FlatWriter};

use crate::Ranges;
use room::Claimed;
use shared::Shared;

/// How many flat files are kept open for [`ExtentSource`](crate::ExtentSource) reads.
const OPEN_FILES: usize = 64;

/// The flat files in a directory. Cheap to clone; clones share the open files.
///
/// Several threads and several processes may use one directory.
#[derive(Debug, Clone)]
pub struct FlatFiles {
    directory: Arc<PathBuf>,
    open: Arc<Mutex<OpenFiles>>,
    shared: Arc<Shared>,
    room: Option<Arc<dyn Room>>,
    /// How often the disk was waited for.
    syncs: Arc<AtomicU64>,
}

/// The files that are kept open, most recently used last.
type OpenFiles = Vec<(FlatId, Arc<Opened>)>;

/// A flat file opened for reading.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) file: File,
    /// What a sparse copy has; `None` for a whole file.
    pub(crate) known: Option<Ranges>,
}

impl Opened {
    pub(crate) fn has(&self, range: &Range<u64>) -> bool {
        self.known
            .as_ref()
            .is_none_or(|known| known.contains(range))
    }
}

/// A flat file that is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlatUsage {
    /// Which one.
    pub id: FlatId,
    /// The space it takes on disk, in bytes.
    pub on_disk: u64,
    /// Whether only some ranges of it may be here.
    pub sparse: bool,
}

/// A new id for a flat file that is not a pulled layer's tar: 32 random bytes.
pub fn random_flat_id() -> FlatId {
    FlatId::from_bytes(rand::random())
}

impl FlatFiles {
    /// Uses `directory`, making it where it doesn't exist. Leftovers of writers that died are removed when they are
    /// older than a day, so that a second process's writers are left alone.
    pub fn new(directory: impl Into<PathBuf>) -> io::Result<Self> {
        let directory = directory.into();
        fs::create_dir_all(directory.join("tmp"))?;
        remove_stale(&directory.join("tmp"))?;
        Ok(Self {
            directory: Arc::new(directory),
            open: Arc::default(),
            shared: Arc::default(),
            room: None,
            syncs: Arc::default(),
        })
    }

    /// The same flat files, whose writers ask `room` first.
    #[must_use]
    pub fn within(&self, room: Arc<dyn Room>) -> Self {
        Self {
            room: Some(room),
            ..self.clone()
        }
    }

    /// Whom writers ask first.
    pub fn room(&self) -> Option<Arc<dyn Room>> {
        self.room.clone()
    }

    /// A writer for a new flat file.
    pub fn writer(&self) -> io::Result<FlatWriter> {
        FlatWriter::new(self.clone())
    }

    /// The whole flat file, for reading; `None` where it is not here, or only parts of it are.
    pub fn open(&self, id: FlatId) -> io::Result<Option<File>> {
        absent_as_none(File::open(self.path(id)))
    }

    /// Where the whole flat file lies (or would).
    pub fn path(&self, id: FlatId) -> PathBuf {
        let name = id.to_string();
        self.directory.join(&name[..2]).join(name)
    }

    /// Where the sparse copy lies (or would).
    pub fn sparse_path(&self, id: FlatId) -> PathBuf {
        self.path(id).with_extension("part")
    }

    /// Whether the whole flat file is here.
    pub fn has(&self, id: FlatId) -> io::Result<bool> {
        self.path(id).try_exists()
    }

    /// What the flat file looks like now, whole or sparse; `None` where nothing of it is here.
    pub fn stamp(&self, id: FlatId) -> io::Result<Option<Stamp>> {
        if let Some(whole) = absent_as_none(fs::metadata(self.path(id)))? {
            return Ok(Some(Stamp::of(&whole, false)));
        }
        let part = absent_as_none(fs::metadata(self.sparse_path(id)))?;
        Ok(part.map(|part| Stamp::of(&part, true)))
    }

    /// Whether the file with this stamp was written by this process, which took its digests then, and has not changed since.
    /// `false` where that is not known.
    pub fn wrote(&self, id: FlatId, stamp: &Stamp) -> bool {
        let written = self.shared.written(id);
        written.is_some_and(|written| written.holds(stamp))
    }

    /// Has `watcher` told of every flat file that is removed by this process.
    pub fn watch(&self, watcher: Weak<dyn FlatWatcher>) {
        self.shared.watch(watcher);
    }

    fn note_written(&self, id: FlatId) -> io::Result<()> {
        if let Some(stamp) = self.stamp(id)? {
            self.shared.note_written(id, stamp);
        }
        Ok(())
    }

    /// The parts of `ranges` whose bytes are not here. Empty ranges are never missing. A block in which the file ends was cut
    /// off by somebody, and does not count: kernels refuse to read it as part of an image's device.
    pub fn missing(&self, id: FlatId, ranges: &[Range<u64>]) -> io::Result<Vec<Range<u64>>> {
        let known = match absent_as_none(fs::metadata(self.path(id)))? {
            Some(whole) => std::iter::once(0..whole_blocks(whole.len())).collect(),
            None => sparse::known_ranges(&self.sparse_path(id))?,
        };
        let wanted: Ranges = ranges.iter().cloned().collect();
        Ok(wanted
            .as_slice()
            .iter()
            .flat_map(|range| known.missing(range))
            .collect())
    }

    /// Keeps `bytes`, which lie at `offset` of the flat file, in a sparse copy. When this returns they are on disk
    /// and known. Does nothing where the whole file is here.
    pub fn write_range(&self, id: FlatId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_ranges(id, &[(offset, bytes)])
    }

    /// Like [`FlatFiles::write_range`] for several ranges, with one flush to disk.
    pub fn write_ranges(&self, id: FlatId, ranges: &[(u64, &[u8])]) -> io::Result<()> {
        if self.has(id)? {
            return Ok(());
        }
        let claimed = Claimed::new(self.room.clone());
        claimed.more(ranges.iter().map(|(_, bytes)| bytes.len() as u64).sum())?;
        let _shared = self.lock(false)?;
        let path = self.sparse_path(id);
        let begun = !path.try_exists()?;
        let written = sparse::write(&path, ranges);
        self.forget(id);
        written.map_err(|error| self.naming(error))?;
        if begun {
            self.note_written(id)?;
        }
        claimed.keep(id);
        Ok(())
    }

    /// Removes the flat file and any sparse copy. Readers that have it open go on reading. Absence is no error.
    pub fn remove(&self, id: FlatId) -> io::Result<()> {
        let alone = self.lock(true)?;
        let usage = self.usage(id)?;
        absent_as_none(fs::remove_file(self.path(id)))?;
        sparse::remove(&self.sparse_path(id))?;
        self.forget(id);
        drop(alone);
        self.shared.removed(id);
        if let (Some(room), Some(usage)) = (&self.room, usage) {
            room.removed(id, usage.on_disk);
        }
        Ok(())
    }

    /// Waits until a flat file that was put in its place without waiting for the disk is there with its bytes. One that is gone
    /// is not waited for.
    pub fn sync(&self, id: FlatId) -> io::Result<()> {
        match self.open(id)? {
            Some(file) => self.wait_for(&file),
            None => Ok(()),
        }
    }

    /// How often whole flat files were waited for to be on the disk, by this value and its clones.
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    fn wait_for(&self, file: &File) -> io::Result<()> {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        file.sync_data().map_err(|error| self.naming(error))
    }

    /// How much room the flat file takes; `None` where nothing of it is here.
    pub fn usage(&self, id: FlatId) -> io::Result<Option<FlatUsage>> {
        match usage(&self.path(id))? {
            Some(whole) => Ok(Some(whole)),
            None => usage(&self.sparse_path(id)),
        }
    }

    /// How much room unfinished writers take, in bytes.
    pub fn unfinished(&self) -> io::Result<u64> {
        use std::os::unix::fs::MetadataExt;
        let mut bytes = 0;
        for file in fs::read_dir(self.directory.join("tmp"))? {
            bytes += absent_as_none(file?.metadata())?.map_or(0, |file| file.blocks() * 512);
        }
        Ok(bytes)
    }

    /// Every flat file that is here, in no order.
    pub fn list(&self) -> io::Result<Vec<FlatUsage>> {
        let mut found = Vec::new();
        for shard in fs::read_dir(&*self.directory)? {
            let shard = shard?;
            if shard.file_name().len() != 2 || !shard.file_type()?.is_dir() {
                continue;
            }
            for file in fs::read_dir(shard.path())? {
                found.extend(usage(&file?.path())?);
            }
        }
        Ok(found)
    }

    /// The file with what is known of it, from the cache of open files.
    pub(crate) fn opened(&self, id: FlatId) -> io::Result<Arc<Opened>> {
        let cached = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.iter().position(|(known, _)| *known == id).map(|at| {
                let hit = open.remove(at);
                open.push(hit.clone());
                hit.1
            })
        };
        if let Some(hit) = cached {
            return Ok(hit);
        }
        let opened = Arc::new(self.open_any(id)?);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= OPEN_FILES {
            open.remove(0);
        }
        open.push((id, Arc::clone(&opened)));
        Ok(opened)
    }

    fn open_any(&self, id: FlatId) -> io::Result<Opened> {
        if let Some(file) = self.open(id)? {
            return Ok(Opened { file, known: None });
        }
        let path = self.sparse_path(id);
        let known = sparse::known_ranges(&path)?;
        match absent_as_none(File::open(&path))? {
            Some(file) => Ok(Opened {
                file,
                known: Some(known),
            }),
            None => Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("flat file {id} is not on this machine"),
            )),
        }
    }

    /// Drops the open file, so that the next read sees what changed.
    pub(crate) fn forget(&self, id: FlatId) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(known, _)| *known != id);
    }

    /// Writers of sparse copies share the lock, whoever removes files holds it alone, in all processes.
    fn lock(&self, alone: bool) -> io::Result<File> {
        let file = File::create(self.directory.join("tmp/lock"))?;
        if alone {
            file.lock()?
        } else {
            file.lock_shared()?
        }
        Ok(file)
    }

    fn naming(&self, error: io::Error) -> io::Error {
        room::naming(&self.directory, error)
    }

    fn temporary(&self) -> io::Result<tempfile::NamedTempFile> {
        tempfile::Builder::new()
            .prefix("flat-")
            .tempfile_in(self.directory.join("tmp"))
    }
}

/// The part of a file's length that is whole blocks, which flat files end with.
fn whole_blocks(length: u64) -> u64 {
    length / writer::ALIGNMENT * writer::ALIGNMENT
}

fn usage(path: &Path) -> io::Result<Option<FlatUsage>> {
    use std::os::unix::fs::MetadataExt;
    let sparse = path.extension().is_some_and(|e| e == "part");
    let name = if sparse {
        path.file_stem()
    } else {
        path.file_name()
    };
    let Some(id) = name.and_then(|n| n.to_str()).and_then(|n| n.parse().ok()) else {
        return Ok(None);
    };
    let Some(metadata) = absent_as_none(fs::metadata(path))? else {
        return Ok(None);
    };
    Ok(Some(FlatUsage {
        id,
        on_disk: metadata.blocks() * 512,
        sparse,
    }))
}

fn remove_stale(tmp: &Path) -> io::Result<()> {
    const DAY: std::time::Duration = std::time::Duration::from_secs(24 * 60 * 60);
    for file in fs::read_dir(tmp)? {
        let file = file?;
        let Some(metadata) = absent_as_none(file.metadata())? else {
            continue;
        };
        let old = metadata.modified()?.elapsed().is_ok_and(|age| age > DAY);
        if old && file.file_name() != "lock" {
            absent_as_none(fs::remove_file(file.path()))?;
        }
    }
    Ok(())
}

pub(crate) fn absent_as_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests;
