//! Blocks go round: one thread makes the tar, several compress, the caller's writes in order.
//!
//! The queue of results is bounded and filled before the work is handed out, so no more blocks exist than it holds.
//! When any part stops, its channels close and the others stop too.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use super::{BLOCK, EncodeError, Encoding};
use crate::tarform::{TarFormError, TarSummary};
use crate::{ExtentSource, Toc, write_tar};

/// A block to compress and where the result goes.
struct Job {
    block: Vec<u8>,
    done: SyncSender<io::Result<Vec<u8>>>,
}

/// The results to come, in order.
type Results = Receiver<Receiver<io::Result<Vec<u8>>>>;

pub(super) fn run(
    toc: &Toc,
    source: &dyn ExtentSource,
    encoding: Encoding,
    threads: usize,
    out: &mut dyn Write,
) -> Result<TarSummary, EncodeError> {
    std::thread::scope(|scope| {
        let (order, results) = sync_channel(2 * threads);
        let (work, jobs) = sync_channel::<Job>(2 * threads);
        // Owned by the workers alone, so that the tar's thread notices when all of them are gone.
        let jobs = std::sync::Arc::new(Mutex::new(jobs));
        for _ in 0..threads {
            let jobs = std::sync::Arc::clone(&jobs);
            scope.spawn(move || compress_jobs(&jobs, encoding));
        }
        drop(jobs);
        let tar = scope.spawn(move || {
            let mut blocks = Blocks {
                pending: Vec::with_capacity(BLOCK),
                order,
                work,
            };
            let summary = write_tar(toc, source, &mut blocks)?;
            blocks.send().map_err(TarFormError::Write)?;
            Ok::<_, TarFormError>(summary)
        });
        let written = write_results(results, out);
        let summary = tar.join().expect("the tar's thread does not panic");
        // A destination that failed makes the tar break off, so it is the cause.
        written?;
        Ok(summary?)
    })
}

/// Collects the tar into blocks and hands them out.
struct Blocks {
    pending: Vec<u8>,
    order: SyncSender<Receiver<io::Result<Vec<u8>>>>,
    work: SyncSender<Job>,
}

impl Blocks {
    fn send(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let block = std::mem::replace(&mut self.pending, Vec::with_capacity(BLOCK));
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

fn compress_jobs(jobs: &Mutex<Receiver<Job>>, encoding: Encoding) {
    let mut compressor = Compressor::new(encoding);
    loop {
        let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else { return };
        let packed = match &mut compressor {
            Ok(compressor) => compressor.compress(&job.block),
            Err(e) => Err(io::Error::new(e.kind(), e.to_string())),
        };
        // Nobody listens once writing has failed.
        let _ = job.done.send(packed);
    }
}

fn write_results(results: Results, out: &mut dyn Write) -> Result<(), EncodeError> {
    for result in results {
        // A sender is dropped without a result only when the tar's thread failed between two sends: it says why.
        let Ok(packed) = result.recv() else {
            return Ok(());
        };
        out.write_all(&packed.map_err(EncodeError::Compress)?)
            .map_err(EncodeError::Write)?;
    }
    Ok(())
}

enum Compressor {
    Gzip(libdeflater::Compressor),
    Zstd(Box<zstd::bulk::Compressor<'static>>),
}

impl Compressor {
    fn new(encoding: Encoding) -> io::Result<Self> {
        match encoding {
            Encoding::Zstd { level } => Ok(Self::Zstd(Box::new(zstd::bulk::Compressor::new(
                level.into(),
            )?))),
            Encoding::Gzip { level } => {
                let level = libdeflater::CompressionLvl::new(level.into());
                let level = level.map_err(|e| io::Error::other(format!("{e:?}")))?;
                Ok(Self::Gzip(libdeflater::Compressor::new(level)))
            }
            Encoding::Uncompressed => Err(io::Error::other("nothing to compress")),
        }
    }

    fn compress(&mut self, block: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Zstd(zstd) => zstd.compress(block),
            Self::Gzip(gzip) => {
                let mut packed = vec![0; gzip.gzip_compress_bound(block.len())];
                let length = gzip
                    .gzip_compress(block, &mut packed)
                    .map_err(|e| io::Error::other(e.to_string()))?;
                packed.truncate(length);
                Ok(packed)
            }
        }
    }
}
