//! Blocks go round: one thread makes the tar, several compress, the caller's writes in order.
//!
//! The queue of results is bounded and filled before the work is handed out, so no more blocks exist than it holds.
//! When any part stops, its channels close and the others stop too.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use super::block::{Compressor, Made, Mark, Reuse};
use super::{BLOCK, Compressed, EncodeError, Encoding};
use crate::tarform::{EntrySink, TarFormError, write_entries};
use crate::{ExtentSource, Toc};

/// A block ends where an entry begins if one does behind so many bytes.
const LEAST: usize = BLOCK / 2;

/// What a block became.
type Packed = io::Result<(Mark, Vec<u8>)>;

/// A block to compress and where the result goes.
struct Job {
    block: Vec<u8>,
    done: SyncSender<Packed>,
}

/// The results to come, in order.
type Results = Receiver<Receiver<Packed>>;

pub(super) fn run(
    toc: &Toc,
    source: &dyn ExtentSource,
    encoding: Encoding,
    threads: usize,
    reuse: Option<&dyn Reuse>,
    out: &mut dyn Write,
) -> Result<Compressed, EncodeError> {
    std::thread::scope(|scope| {
        let (order, results) = sync_channel(2 * threads);
        let (work, jobs) = sync_channel::<Job>(2 * threads);
        // Owned by the workers alone, so that the tar's thread notices when all of them are gone.
        let jobs = std::sync::Arc::new(Mutex::new(jobs));
        for _ in 0..threads {
            let jobs = std::sync::Arc::clone(&jobs);
            scope.spawn(move || compress_jobs(&jobs, encoding, reuse));
        }
        drop(jobs);
        let tar = scope.spawn(move || {
            let mut blocks = Blocks {
                pending: Vec::with_capacity(BLOCK),
                end: None,
                order,
                work,
            };
            let summary = write_entries(toc, source, &mut blocks)?;
            blocks.send().map_err(TarFormError::Write)?;
            Ok::<_, TarFormError>(summary)
        });
        let written = write_results(results, out);
        let summary = tar.join().expect("the tar's thread does not panic");
        // A destination that failed makes the tar break off, so it is the cause.
        let blocks = written?;
        let tar = summary?;
        Ok(Compressed { tar, blocks })
    })
}

/// Collects the tar into blocks and hands them out.
struct Blocks {
    pending: Vec<u8>,
    /// Of the entries that the block may end before, the one with the lowest rank: that, and where it begins.
    end: Option<(u32, usize)>,
    order: SyncSender<Receiver<Packed>>,
    work: SyncSender<Job>,
}

impl Blocks {
    fn send(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let mut block = std::mem::replace(&mut self.pending, Vec::with_capacity(BLOCK));
        if let Some((_, at)) = self.end.take().filter(|_| block.len() == BLOCK) {
            // At most BLOCK - LEAST, so no entry in it could end the next block.
            self.pending.extend_from_slice(&block[at..]);
            block.truncate(at);
        }
        let (done, result) = sync_channel(1);
        let stopped = || io::Error::other("the blob is no longer written");
        self.order.send(result).map_err(|_| stopped())?;
        self.work.send(Job { block, done }).map_err(|_| stopped())
    }
}

impl Write for Blocks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(BLOCK - self.pending.len());
        self.pending.extend_from_slice(&bytes[..taken]);
        if self.pending.len() == BLOCK {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl EntrySink for Blocks {
    fn entry(&mut self, path: &[u8]) -> io::Result<()> {
        let at = self.pending.len();
        if at < LEAST {
            return Ok(());
        }
        let rank = rank(path);
        if self.end.is_none_or(|(lowest, _)| rank < lowest) {
            self.end = Some((rank, at));
        }
        Ok(())
    }
}

/// Before which entry a block ends: FNV-1a of its path, whose upper bits depend on all of it.
fn rank(path: &[u8]) -> u32 {
    let hash = path.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    (hash >> 32) as u32
}

fn compress_jobs(jobs: &Mutex<Receiver<Job>>, encoding: Encoding, reuse: Option<&dyn Reuse>) {
    let mut compressor = Compressor::new(encoding);
    loop {
        let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else { return };
        let packed = match &mut compressor {
            Ok(compressor) => compressor.pack(&job.block, reuse),
            Err(e) => Err(io::Error::new(e.kind(), e.to_string())),
        };
        // Nobody listens once writing has failed.
        let _ = job.done.send(packed);
    }
}

fn write_results(results: Results, out: &mut dyn Write) -> Result<Vec<Made>, EncodeError> {
    let mut made = Vec::new();
    let mut offset = 0;
    for result in results {
        // A sender is dropped without a result only when the tar's thread failed between two sends: it says why.
        let Ok(packed) = result.recv() else {
            return Ok(made);
        };
        let (mark, packed) = packed.map_err(EncodeError::Compress)?;
        out.write_all(&packed).map_err(EncodeError::Write)?;
        let length = packed.len() as u64;
        made.push(Made {
            mark,
            offset,
            length,
        });
        offset += length;
    }
    Ok(made)
}
