//! Writing a stream to a flat file and hashing it, on a thread of its own, while somebody reads it.
//!
//! This is what makes ingesting one pass: the reader parses and hashes files, the other thread computes the diff id
//! and writes. A fixed number of buffers goes round between the two.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use buildyard_model::Digest;
use sha2::{Digest as _, Sha256};

use crate::FlatWriter;

const BUFFER: usize = 256 << 10;
/// Buffers between the two threads; with the reader's own, a layer takes about 2 MiB of memory.
const IN_FLIGHT: usize = 6;

/// Why a stream could not be kept.
#[derive(Debug)]
pub(crate) enum TeeError<E> {
    /// What the parser said.
    Parse(E),
    /// The stream failed behind what the parser read.
    Read(io::Error),
    /// The flat file could not be written.
    Write(io::Error),
}

/// Runs `parse` on the stream; then drains what it left. Everything goes to `writer`. Gives the parser's value and
/// the digest and length of the whole stream.
pub(crate) fn tee<R: Read, T, E>(
    reader: R,
    writer: &FlatWriter,
    parse: impl FnOnce(&mut Tee<R>) -> Result<T, E>,
) -> Result<(T, Digest, u64), TeeError<E>> {
    std::thread::scope(|scope| {
        let (full, filled) = sync_channel(IN_FLIGHT);
        let (empty, emptied) = channel();
        let keeper = scope.spawn(move || keep(writer, filled, empty));
        let mut tee = Tee {
            reader,
            pending: Vec::with_capacity(BUFFER),
            full,
            emptied,
        };
        let parsed = parse(&mut tee);
        let drained = match &parsed {
            Ok(_) => io::copy(&mut tee, &mut io::sink()).map(drop),
            Err(_) => Ok(()),
        };
        tee.flush();
        drop(tee);
        // A disk that is full explains why the parser's stream broke off, so it comes first.
        let (digest, size) = keeper
            .join()
            .expect("the writing thread does not panic")
            .map_err(TeeError::Write)?;
        let value = parsed.map_err(TeeError::Parse)?;
        drained.map_err(TeeError::Read)?;
        Ok((value, digest, size))
    })
}

fn keep(
    writer: &FlatWriter,
    filled: Receiver<Vec<u8>>,
    empty: Sender<Vec<u8>>,
) -> io::Result<(Digest, u64)> {
    let mut hasher = Sha256::new();
    let mut size = 0;
    for mut buffer in filled {
        hasher.update(&buffer);
        writer.append_raw(&buffer)?;
        size += buffer.len() as u64;
        buffer.clear();
        // Nobody takes it back once the reader is done.
        let _ = empty.send(buffer);
    }
    Ok((Digest::from_bytes(hasher.finalize().into()), size))
}

/// A reader whose bytes also go to the other thread.
pub(crate) struct Tee<R> {
    reader: R,
    pending: Vec<u8>,
    full: SyncSender<Vec<u8>>,
    emptied: Receiver<Vec<u8>>,
}

impl<R> Tee<R> {
    /// Hands the pending bytes over. `false` where the other thread gave up.
    fn flush(&mut self) -> bool {
        if self.pending.is_empty() {
            return true;
        }
        let next = self
            .emptied
            .try_recv()
            .unwrap_or_else(|_| Vec::with_capacity(BUFFER));
        self.full
            .send(std::mem::replace(&mut self.pending, next))
            .is_ok()
    }
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let got = self.reader.read(buf)?;
        self.pending.extend_from_slice(&buf[..got]);
        if self.pending.len() >= BUFFER && !self.flush() {
            return Err(io::Error::other("the flat file cannot be written"));
        }
        Ok(got)
    }
}
