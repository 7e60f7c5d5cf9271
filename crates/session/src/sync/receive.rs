//! The receiving end of the protocol: reads packets, asks for contents, writes them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::tree::{Tree, Wanted};
use super::writer::{Piece, Writer};
use super::{Pack, SyncProgress, SyncRequest, Synced};
use crate::SessionError;
use crate::wire::{Packet, PacketType};

const REPORT_EVERY: Duration = Duration::from_millis(100);

/// Runs one transfer to its end.
pub(crate) async fn run(
    request: SyncRequest,
    incoming: Streaming<Packet>,
    outgoing: mpsc::Sender<Packet>,
    pack: Box<dyn Pack>,
) -> Result<Synced, SessionError> {
    let previous = request.previous.clone();
    let dir = request.dir_name.clone();
    let writer = Writer::start(pack);
    let mut transfer = Transfer::new(&request, previous.as_deref(), incoming, outgoing.clone());
    let problem = match transfer.receive(&writer).await {
        Ok(()) => None,
        Err(Stop::WriterFailed) => None,
        Err(Stop::Bad(problem)) => Some(SessionError::BadTransfer {
            dir: dir.clone(),
            problem,
        }),
        Err(Stop::Status(status)) => {
            return Err(SessionError::refused(
                format!("reading {dir:?} from the client"),
                *status,
            ));
        }
    };
    if let Some(err) = problem {
        // The client prints what it is told; that it may be gone already is no matter.
        let _ = outgoing.try_send(Packet::error(&err.to_string()));
        return Err(err);
    }
    let written = writer.finish(transfer.tree.pack_length()).await;
    let written = written.map_err(|err| SessionError::Pack {
        dir: dir.clone(),
        problem: err.to_string(),
    })?;
    transfer
        .goodbye()
        .await
        .map_err(|stop| stop.into_error(&dir))?;
    let (bytes, files) = (transfer.content_bytes, transfer.files);
    let toc = transfer.tree.finish(&written.digests, written.flat);
    let toc = toc.map_err(|problem| SessionError::BadTransfer { dir, problem })?;
    Ok(Synced {
        toc,
        flat: written.flat,
        bytes,
        files,
    })
}

/// Why a transfer stopped early.
enum Stop {
    Bad(String),
    Status(Box<Status>),
    WriterFailed,
}

impl Stop {
    fn into_error(self, dir: &str) -> SessionError {
        let dir = dir.to_owned();
        match self {
            Self::Bad(problem) => SessionError::BadTransfer { dir, problem },
            Self::Status(status) => {
                SessionError::refused(format!("reading {dir:?} from the client"), *status)
            }
            Self::WriterFailed => SessionError::Pack {
                dir,
                problem: "the writing thread has ended".to_owned(),
            },
        }
    }
}

struct Transfer<'a> {
    incoming: Streaming<Packet>,
    outgoing: mpsc::Sender<Packet>,
    tree: Tree<'a>,
    /// Contents that are yet to be asked for. Asking never blocks reading: a client that waits for us to read would
    /// wait forever. Bounded by the number of paths.
    to_request: VecDeque<u32>,
    /// Contents that are asked for or will be: how much of each is there.
    open: HashMap<u32, Open>,
    all_stats: bool,
    content_bytes: u64,
    files: u64,
    report: Report,
}

struct Open {
    wanted: Wanted,
    received: u64,
}

impl<'a> Transfer<'a> {
    fn new(
        request: &SyncRequest,
        previous: Option<&'a buildyard_layer::Toc>,
        incoming: Streaming<Packet>,
        outgoing: mpsc::Sender<Packet>,
    ) -> Self {
        Self {
            incoming,
            outgoing,
            tree: Tree::new(previous, request.limits),
            to_request: VecDeque::new(),
            open: HashMap::new(),
            all_stats: false,
            content_bytes: 0,
            files: 0,
            report: Report::new(request.progress.clone()),
        }
    }

    /// Reads until every path is known and every content is there.
    async fn receive(&mut self, writer: &Writer) -> Result<(), Stop> {
        while !(self.all_stats && self.open.is_empty()) {
            let packet = tokio::select! {
                packet = self.incoming.message() => packet.map_err(|status| Stop::Status(Box::new(status)))?,
                permit = self.outgoing.reserve(), if !self.to_request.is_empty() => {
                    if let (Ok(permit), Some(id)) = (permit, self.to_request.pop_front()) {
                        permit.send(Packet::request(id));
                    }
                    continue;
                }
            };
            let packet =
                packet.ok_or_else(|| Stop::Bad("the client stopped in the middle".to_owned()))?;
            self.report.packet(&packet, self.tree.len());
            self.take(packet, writer).await?;
        }
        Ok(())
    }

    async fn take(&mut self, packet: Packet, writer: &Writer) -> Result<(), Stop> {
        match PacketType::try_from(packet.r#type) {
            Ok(PacketType::Stat) => self.take_stat(packet),
            Ok(PacketType::Data) => self.take_data(packet, writer).await,
            Ok(PacketType::Err) => Err(Stop::Bad(
                String::from_utf8_lossy(&packet.data).into_owned(),
            )),
            Ok(PacketType::Fin) => Err(Stop::Bad(
                "the client ended before it had sent everything".to_owned(),
            )),
            Ok(PacketType::Req) | Err(_) => Err(Stop::Bad(format!(
                "unexpected packet of type {}",
                packet.r#type
            ))),
        }
    }

    fn take_stat(&mut self, packet: Packet) -> Result<(), Stop> {
        if self.all_stats {
            return Err(Stop::Bad("a path came after the last".to_owned()));
        }
        let Some(stat) = packet.stat else {
            self.all_stats = true;
            return Ok(());
        };
        if let Some(wanted) = self.tree.add(stat).map_err(Stop::Bad)? {
            self.to_request.push_back(wanted.id);
            self.open.insert(
                wanted.id,
                Open {
                    wanted,
                    received: 0,
                },
            );
        }
        Ok(())
    }

    async fn take_data(&mut self, packet: Packet, writer: &Writer) -> Result<(), Stop> {
        let id = packet.id;
        let open = self
            .open
            .get_mut(&id)
            .ok_or_else(|| Stop::Bad(format!("content {id} was not asked for")))?;
        let (length, size) = (packet.data.len() as u64, open.wanted.size);
        let ended = length == 0;
        if open.received + length > size || (ended && open.received != size) {
            let path = self.tree.path(id);
            return Err(Stop::Bad(format!(
                "{path:?} was {size} bytes long and changed, or could not be read, while it was being sent"
            )));
        }
        let offset = open.wanted.offset + open.received;
        open.received += length;
        self.content_bytes += length;
        let piece = if ended {
            Piece::End { id }
        } else {
            Piece::Data {
                id,
                offset,
                bytes: packet.data,
            }
        };
        if ended {
            self.open.remove(&id);
            self.files += 1;
        }
        if writer.send(piece).await {
            Ok(())
        } else {
            Err(Stop::WriterFailed)
        }
    }

    /// Ends the protocol: FIN both ways. Clients that just close are taken as having said it.
    async fn goodbye(&mut self) -> Result<(), Stop> {
        self.report.done(self.tree.len());
        // A failure to send shows in what is received next.
        let _ = self.outgoing.send(Packet::of(PacketType::Fin)).await;
        let packet = self.incoming.message().await;
        let packet = packet.map_err(|status| Stop::Status(Box::new(status)))?;
        match packet.map(|packet| PacketType::try_from(packet.r#type)) {
            None | Some(Ok(PacketType::Fin)) => Ok(()),
            Some(Ok(PacketType::Err)) => {
                Err(Stop::Bad("the client failed at the very end".to_owned()))
            }
            Some(_) => Err(Stop::Bad("a packet came after the end".to_owned())),
        }
    }
}

/// Tells the caller how far it is, at most every [`REPORT_EVERY`].
struct Report {
    to: Option<Arc<dyn Fn(SyncProgress) + Send + Sync>>,
    last: Option<Instant>,
    bytes: u64,
}

impl Report {
    fn new(to: Option<Arc<dyn Fn(SyncProgress) + Send + Sync>>) -> Self {
        Self {
            to,
            last: None,
            bytes: 0,
        }
    }

    fn packet(&mut self, packet: &Packet, entries: usize) {
        self.bytes += prost::Message::encoded_len(packet) as u64;
        if self.last.is_none_or(|last| last.elapsed() >= REPORT_EVERY) {
            self.last = Some(Instant::now());
            self.send(entries, false);
        }
    }

    fn done(&self, entries: usize) {
        self.send(entries, true);
    }

    fn send(&self, entries: usize, done: bool) {
        if let Some(to) = &self.to {
            to(SyncProgress {
                bytes: self.bytes,
                entries: entries as u64,
                done,
            });
        }
    }
}
