//! Writing a new flat file.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use buildyard_model::{Digest, FlatId};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use sha2::{Digest as _, Sha256};

use super::FlatFiles;
use super::room::Claimed;
use crate::Extent;

/// Files start on multiples of this, and are padded with zeros to the next one.
pub(crate) const ALIGNMENT: u64 = 512;
/// How much of a file is read at once; also the unit in which one file's bytes stay together.
const CHUNK: usize = 1 << 20;
/// A run of zeros becomes a hole when it fills an aligned block of this size.
const HOLE: usize = 64 << 10;

/// A flat file being written. Several threads may append to one writer; dropping it discards what was written.
#[derive(Debug)]
pub struct FlatWriter {
    files: FlatFiles,
    temporary: tempfile::NamedTempFile,
    end: AtomicU64,
    /// Buffers that no thread uses at the moment: one for each that ever appended at the same time.
    buffers: Mutex<Vec<Vec<u8>>>,
    claimed: Claimed,
}

/// A file that was appended to a flat file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// Where its bytes are. `flat` is 0: the caller sets the index that the flat file has in its TOC.
    pub extents: Vec<Extent>,
    /// Its length in bytes, holes included.
    pub size: u64,
    /// SHA-256 over all of it.
    pub content: Digest,
}

impl FlatWriter {
    pub(super) fn new(files: FlatFiles) -> io::Result<Self> {
        let temporary = files.temporary()?;
        let claimed = Claimed::new(files.room.clone());
        Ok(Self {
            claimed,
            files,
            temporary,
            end: AtomicU64::new(0),
            buffers: Mutex::default(),
        })
    }

    /// Appends everything that `reader` gives as one file. Long runs of zeros become holes.
    pub fn append_file(&self, reader: &mut dyn Read) -> io::Result<Appended> {
        let buffers = || self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffer = buffers().pop().unwrap_or_else(|| vec![0; CHUNK]);
        let appended = self.append_with(reader, &mut buffer);
        buffers().push(buffer);
        appended
    }

    fn append_with(&self, reader: &mut dyn Read, buffer: &mut [u8]) -> io::Result<Appended> {
        let mut extents = Vec::new();
        let mut hasher = Sha256::new();
        let mut size = 0;
        loop {
            let got = read_full(reader, buffer)?;
            hasher.update(&buffer[..got]);
            self.append_chunk(&buffer[..got], size, &mut extents)?;
            size += got as u64;
            if got < CHUNK {
                break;
            }
        }
        Ok(Appended {
            extents,
            size,
            content: Digest::from_bytes(hasher.finalize().into()),
        })
    }

    /// Appends `bytes` as they are, without padding, and returns where they begin.
    pub(crate) fn append_raw(&self, bytes: &[u8]) -> io::Result<u64> {
        let offset = self.end.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.put(bytes, offset)?;
        Ok(offset)
    }

    /// Writes `bytes` at `offset`, for writers that place files themselves: each on a 512-byte boundary, the padding left
    /// out. What is never written reads as zeros.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.put(bytes, offset)?;
        self.end
            .fetch_max(offset + bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Makes the flat file `length` bytes long, the padding after the last file included.
    pub fn set_len(&self, length: u64) -> io::Result<()> {
        self.temporary.as_file().set_len(length)?;
        self.end.store(length, Ordering::Relaxed);
        Ok(())
    }

    /// How long the flat file is so far, in bytes.
    pub fn len(&self) -> u64 {
        self.end.load(Ordering::Relaxed)
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes the flat file available as `id`, on disk before it has its name. A whole file that is already there
    /// stays; a sparse copy goes. Returns the length in bytes; the file is padded to whole blocks.
    pub fn commit(self, id: FlatId) -> io::Result<u64> {
        self.pad()?;
        self.files.wait_for(self.temporary.as_file())?;
        self.place(id)
    }

    /// Like [`FlatWriter::commit`], without waiting for the disk. `id` must be a new one, which nobody else names; before anything
    /// that names it is recorded anywhere, it is to be [synced](super::FlatFiles::sync). After a crash of the machine it may have its
    /// length and not its bytes.
    pub fn commit_unsynced(self, id: FlatId) -> io::Result<u64> {
        self.pad()?;
        self.place(id)
    }

    fn pad(&self) -> io::Result<()> {
        let padded = self.len().next_multiple_of(ALIGNMENT);
        let padded = self.temporary.as_file().set_len(padded);
        padded.map_err(|error| self.files.naming(error))
    }

    fn place(self, id: FlatId) -> io::Result<u64> {
        let length = self.len();
        let path = self.files.path(id);
        if let Some(shard) = path.parent() {
            fs::create_dir_all(shard)?;
        }
        match renameat_with(
            CWD,
            self.temporary.path(),
            CWD,
            &path,
            RenameFlags::NOREPLACE,
        ) {
            Ok(()) => {
                drop(self.temporary.into_temp_path().keep());
                self.files.note_written(id)?;
                self.claimed.keep(id);
            }
            Err(rustix::io::Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
        let _alone = self.files.lock(true)?;
        super::sparse::remove(&self.files.sparse_path(id))?;
        self.files.forget(id);
        Ok(length)
    }

    fn put(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.claimed.more(bytes.len() as u64)?;
        let written = self.temporary.as_file().write_all_at(bytes, offset);
        written.map_err(|error| self.files.naming(error))
    }

    /// Writes one chunk, whose first byte is byte `at` of its file, and adds its extents.
    fn append_chunk(&self, chunk: &[u8], at: u64, extents: &mut Vec<Extent>) -> io::Result<()> {
        let mut rest = 0;
        while rest < chunk.len() {
            rest += run(&chunk[rest..], true);
            let length = run(&chunk[rest..], false);
            if length > 0 {
                let padded = (length as u64).next_multiple_of(ALIGNMENT);
                let offset = self.end.fetch_add(padded, Ordering::Relaxed);
                self.put(&chunk[rest..rest + length], offset)?;
                push_extent(extents, offset, length as u64, at + rest as u64);
                rest += length;
            }
        }
        Ok(())
    }
}

/// How many bytes at the start of `bytes` are holes (or are not), in steps of [`HOLE`].
fn run(bytes: &[u8], holes: bool) -> usize {
    let is_hole = |block: &&[u8]| block.len() == HOLE && is_zero(block);
    bytes
        .chunks(HOLE)
        .take_while(|block| is_hole(block) == holes)
        .map(<[u8]>::len)
        .sum()
}

fn is_zero(block: &[u8]) -> bool {
    // Compares the block with itself, one byte on: all bytes are equal to the first, which is zero.
    block[0] == 0 && block[1..] == block[..block.len() - 1]
}

/// Adds an extent, or lengthens the last one where both continue.
fn push_extent(extents: &mut Vec<Extent>, offset: u64, length: u64, at: u64) {
    match extents.last_mut() {
        Some(last) if last.offset + last.length == offset && last.at + last.length == at => {
            last.length += length
        }
        _ => extents.push(Extent {
            flat: 0,
            offset,
            length,
            at,
        }),
    }
}

/// Reads until `buffer` is full or the end is reached.
pub(crate) fn read_full(reader: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match reader.read(&mut buffer[got..]) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(got)
}
