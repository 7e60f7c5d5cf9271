//! The sending side of one file sync: the walk and the answers to requests run at once.

use std::collections::HashMap;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use futures::StreamExt;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, Streaming};

use super::super::wire::{self, Packet, packet};
use super::{FileKind, Root, Selection, SendError, lossy, walk};

/// How many files are read at once, and how many may wait.
const READERS: usize = 4;
const QUEUE: usize = 128;
const CHUNK: usize = 64 << 10;

/// Which number is which path; a number is answered once.
type Offered = Arc<Mutex<HashMap<u32, Vec<u8>>>>;
type Outgoing = mpsc::Sender<Result<Packet, Status>>;

/// The packets to send, driven by those that come in. Dropping the stream ends everything.
pub(super) fn stream(
    root: Root,
    selection: Selection,
    incoming: Streaming<Packet>,
) -> wire::Outgoing {
    let (outgoing, packets) = mpsc::channel(32);
    let task = AbortOnDropHandle::new(tokio::spawn(async move {
        if let Err(status) = run(root, selection, incoming, outgoing.clone()).await {
            // Older receivers look at the packet, newer ones at the status; the receiver may be gone already.
            let data = status.message().as_bytes().to_vec();
            let _ = outgoing
                .send(Ok(Packet {
                    data,
                    ..packet(PacketType::PacketErr, 0)
                }))
                .await;
            let _ = outgoing.send(Err(status)).await;
        }
    }));
    ReceiverStream::new(packets)
        .map(move |item| {
            let _owner = &task;
            item
        })
        .boxed()
}

async fn run(
    root: Root,
    selection: Selection,
    mut incoming: Streaming<Packet>,
    outgoing: Outgoing,
) -> Result<(), Status> {
    let offered = Offered::default();
    let readers = Arc::new(Semaphore::new(READERS));
    let waiting = Arc::new(Semaphore::new(QUEUE));
    let mut tasks: JoinSet<Result<(), SendError>> = JoinSet::new();
    {
        let (root, offered, outgoing) = (root.clone(), offered.clone(), outgoing.clone());
        tasks.spawn_blocking(move || send_stats(&root, &selection, &offered, &outgoing));
    }
    loop {
        tokio::select! {
            Some(done) = tasks.join_next() => done.map_err(|_| Status::internal("a reading thread ended early"))??,
            message = incoming.message() => {
                let Some(message) = message? else {
                    return Err(Status::cancelled("the farm stopped asking before the end"));
                };
                match message.r#type() {
                    PacketType::PacketReq => {
                        let path = take(&offered, message.id)?;
                        let place = waiting.clone().acquire_owned().await.map_err(|_| Status::internal("closed"))?;
                        let (root, outgoing, readers) = (root.clone(), outgoing.clone(), readers.clone());
                        tasks.spawn(async move {
                            let _place = place;
                            let _reader = readers.acquire_owned().await.map_err(|_| SendError::Gone)?;
                            let read = move || send_file(&root, message.id, &path, &outgoing);
                            tokio::task::spawn_blocking(read).await.map_err(|_| SendError::Gone)?
                        });
                    }
                    PacketType::PacketFin => {
                        let _ = outgoing.send(Ok(packet(PacketType::PacketFin, 0))).await;
                        return Ok(());
                    }
                    PacketType::PacketErr => {
                        let text = String::from_utf8_lossy(&message.data).into_owned();
                        return Err(Status::aborted(format!("the farm could not take the files: {text}")));
                    }
                    PacketType::PacketStat | PacketType::PacketData => {
                        return Err(Status::invalid_argument("a receiver of files sends only requests"));
                    }
                }
            }
        }
    }
}

fn take(offered: &Offered, id: u32) -> Result<Vec<u8>, Status> {
    let path = offered
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .remove(&id);
    path.ok_or_else(|| {
        Status::invalid_argument(format!(
            "{id} is not the number of a file, or was asked for before"
        ))
    })
}

fn send_stats(
    root: &Root,
    selection: &Selection,
    offered: &Offered,
    outgoing: &Outgoing,
) -> Result<(), SendError> {
    let mut id = 0;
    walk(root, selection, &mut |stat| {
        if FileKind::of(stat.mode) == FileKind::Regular {
            offered
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(id, stat.path.clone());
        }
        id += 1;
        let message = Packet {
            stat: Some(stat),
            ..packet(PacketType::PacketStat, 0)
        };
        outgoing
            .blocking_send(Ok(message))
            .map_err(|_| SendError::Gone)
    })?;
    outgoing
        .blocking_send(Ok(packet(PacketType::PacketStat, 0)))
        .map_err(|_| SendError::Gone)
}

fn send_file(root: &Root, id: u32, path: &[u8], outgoing: &Outgoing) -> Result<(), SendError> {
    let read = |source| SendError::Read {
        path: lossy(path),
        source,
    };
    let mut file = root.file(path).map_err(read)?;
    loop {
        let mut data = Vec::with_capacity(CHUNK);
        (&mut file)
            .take(CHUNK as u64)
            .read_to_end(&mut data)
            .map_err(read)?;
        let end = data.is_empty();
        let message = Packet {
            data,
            ..packet(PacketType::PacketData, id)
        };
        outgoing
            .blocking_send(Ok(message))
            .map_err(|_| SendError::Gone)?;
        if end {
            return Ok(());
        }
    }
}
