//! The thread that writes contents and computes their digests.

use std::collections::HashMap;

use buildyard_model::{Digest, FlatId};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{Pack, PackError};

/// Pieces that wait to be written.
const QUEUE: usize = 64;

/// One thing to do for the writing thread.
pub(crate) enum Piece {
    /// Bytes of the file with this number, next in its order, to be written at `offset` of the pack.
    Data { id: u32, offset: u64, bytes: Bytes },
    /// The file is complete.
    End { id: u32 },
}

/// What the thread leaves.
pub(crate) struct Written {
    /// Digest of every file that was ended, by number.
    pub(crate) digests: HashMap<u32, Digest>,
    /// The pack's name, where anything was asked for.
    pub(crate) flat: Option<FlatId>,
}

/// The digests, and the pack to be finished.
type Outcome = Result<(HashMap<u32, Digest>, Box<dyn Pack>), PackError>;

/// The async end of the writing thread. Dropped before [`Writer::finish`], the pack is discarded.
pub(crate) struct Writer {
    pieces: mpsc::Sender<Piece>,
    thread: JoinHandle<Outcome>,
}

impl Writer {
    pub(crate) fn start(pack: Box<dyn Pack>) -> Self {
        let (pieces, queue) = mpsc::channel(QUEUE);
        Self {
            pieces,
            thread: tokio::task::spawn_blocking(move || write_all(queue, pack)),
        }
    }

    /// Hands over a piece. False: the thread has failed, and [`Writer::finish`] says why.
    pub(crate) async fn send(&self, piece: Piece) -> bool {
        self.pieces.send(piece).await.is_ok()
    }

    /// Waits for everything to be written. `length` is where the pack ends; zero discards it.
    pub(crate) async fn finish(self, length: u64) -> Result<Written, PackError> {
        drop(self.pieces);
        let gone = |_| PackError("the writing thread has died".to_owned());
        let (digests, pack) = self.thread.await.map_err(gone)??;
        if length == 0 {
            return Ok(Written {
                digests,
                flat: None,
            });
        }
        let finish = tokio::task::spawn_blocking(move || pack.finish(length));
        let flat = finish.await.map_err(gone)??;
        Ok(Written {
            digests,
            flat: Some(flat),
        })
    }
}

fn write_all(mut queue: mpsc::Receiver<Piece>, mut pack: Box<dyn Pack>) -> Outcome {
    let mut open: HashMap<u32, Sha256> = HashMap::new();
    let mut digests = HashMap::new();
    while let Some(piece) = queue.blocking_recv() {
        match piece {
            Piece::Data { id, offset, bytes } => {
                open.entry(id).or_default().update(&bytes);
                pack.write_at(offset, &bytes)?;
            }
            Piece::End { id } => {
                let hash = open.remove(&id).unwrap_or_default().finalize();
                digests.insert(id, Digest::from_bytes(hash.into()));
            }
        }
    }
    Ok((digests, pack))
}
