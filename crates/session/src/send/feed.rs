//! What is sent of a directory, and in which order.
//!
//! A client (fsutil's receiver) makes the paths one after the other, and asks for each file's content when it has made it. It
//! writes contents where it reads its stream, beside the making. So contents go in between the paths: neither waits for the
//! other as long as the client always has some paths to make. All of it happens on one thread, and what is handed over
//! is a batch: for each small file, waking another task would cost more than reading it.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use tokio::sync::mpsc::Sender;

use super::dir::stopped;
use super::{DirEntry, DirKind, DirSource};
use crate::SessionError;
use crate::go_mode as mode;
use crate::wire::{Packet, PacketType, Stat, nanoseconds};

/// Batches on their way to the connection.
pub(super) const BATCHES: usize = 4;
/// Bytes of one batch, about: it is handed over when it has more.
const BATCH: usize = 256 << 10;
/// Most bytes of content in one packet.
pub(super) const CHUNK: usize = 128 << 10;
/// What a packet counts for, besides content.
const PACKET: usize = 128;
/// How many files a client should have to make while it gets contents: its own queue takes 128 paths, the rest is on the way.
pub(super) const AHEAD: usize = 512;
/// How long a request is waited for before the client is given more paths: it may be far away, or have the files already.
pub(super) const ASKED_WITHIN: Duration = Duration::from_millis(5);

/// Sends the paths and, between them and after them, the contents that the client asks for by their numbers. Ends when the
/// client has said FIN, that is, when the queue of requests is closed. `patience`: see [`ASKED_WITHIN`]. Returns the bytes of
/// contents.
pub(super) fn run(
    source: &dyn DirSource,
    packets: &Sender<Vec<Packet>>,
    requests: Receiver<u32>,
    patience: Duration,
) -> Result<u64, SessionError> {
    let paths = source.paths();
    let mut feed = Feed {
        out: Out::new(packets),
        asked: Asked::new(requests, paths),
        source,
        bytes: 0,
    };
    let mut next = 0;
    let mut ahead = AHEAD;
    while next < paths {
        feed.asked.take()?;
        if feed.asked.unasked < ahead && feed.asked.pending.len() < ahead {
            feed.path(next)?;
            next += 1;
        } else if !feed.content()? {
            feed.out.flush()?;
            if !feed.asked.wait(patience)? {
                ahead *= 2;
            }
        }
    }
    feed.out.put(Packet::stat(None), 0)?;
    while feed.content()? || feed.wait_for_last()? {}
    feed.out.put(Packet::of(PacketType::Fin), 0)?;
    feed.out.flush()?;
    Ok(feed.bytes)
}

struct Feed<'a> {
    source: &'a dyn DirSource,
    out: Out<'a>,
    asked: Asked,
    bytes: u64,
}

impl Feed<'_> {
    fn path(&mut self, number: usize) -> Result<(), SessionError> {
        let entry = self.source.entry(number);
        if matches!(entry.kind, DirKind::File(_)) {
            self.asked.may_be(number);
        }
        let names = entry.path.len();
        self.out.put(Packet::stat(Some(stat(entry))), names)
    }

    /// Sends one content that was asked for; `false` if none is.
    fn content(&mut self) -> Result<bool, SessionError> {
        let Some(id) = self.asked.pending.pop_front() else {
            return Ok(false);
        };
        let number = id as usize;
        let mut reader = self.source.open(number).map_err(SessionError::Source)?;
        let mut left = match self.source.entry(number).kind {
            DirKind::File(size) => size,
            _ => 0,
        };
        while left > 0 {
            let mut chunk = vec![0; left.min(CHUNK as u64) as usize];
            reader
                .read_exact(&mut chunk)
                .map_err(SessionError::Source)?;
            left -= chunk.len() as u64;
            self.bytes += chunk.len() as u64;
            let size = chunk.len();
            self.out.put(Packet::data(id, chunk.into()), size)?;
        }
        self.out.put(Packet::data(id, Vec::new().into()), 0)?;
        Ok(true)
    }

    /// Waits for one more request; `false` when there are no more.
    fn wait_for_last(&mut self) -> Result<bool, SessionError> {
        self.out.flush()?;
        self.asked.wait_long()
    }
}

/// What the client may ask for, and has asked for.
struct Asked {
    requests: Receiver<u32>,
    /// By number: a file that the client knows, and has not asked for.
    known: Vec<bool>,
    unasked: usize,
    /// Asked for and not sent.
    pending: VecDeque<u32>,
}

impl Asked {
    fn new(requests: Receiver<u32>, paths: usize) -> Self {
        Self {
            requests,
            known: vec![false; paths],
            unasked: 0,
            pending: VecDeque::new(),
        }
    }

    /// From now on the client may ask for the file.
    fn may_be(&mut self, number: usize) {
        self.known[number] = true;
        self.unasked += 1;
    }

    /// Takes over what has been asked.
    fn take(&mut self) -> Result<(), SessionError> {
        while let Ok(id) = self.requests.try_recv() {
            self.ask(id)?;
        }
        Ok(())
    }

    /// Waits a little for a request. Whether one came.
    fn wait(&mut self, patience: Duration) -> Result<bool, SessionError> {
        match self.requests.recv_timeout(patience) {
            Ok(id) => self.ask(id).map(|()| true),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Ok(false),
        }
    }

    /// Waits for a request. Whether one came; else there will be none.
    fn wait_long(&mut self) -> Result<bool, SessionError> {
        match self.requests.recv() {
            Ok(id) => self.ask(id).map(|()| true),
            Err(_) => Ok(false),
        }
    }

    fn ask(&mut self, id: u32) -> Result<(), SessionError> {
        match self.known.get_mut(id as usize) {
            Some(known) if *known => *known = false,
            _ => {
                return Err(stopped(&format!(
                    "it asked for file {id}, which it may not"
                )));
            }
        }
        self.unasked -= 1;
        self.pending.push_back(id);
        Ok(())
    }
}

/// Packets, handed over in batches.
struct Out<'a> {
    packets: &'a Sender<Vec<Packet>>,
    batch: Vec<Packet>,
    size: usize,
}

impl<'a> Out<'a> {
    fn new(packets: &'a Sender<Vec<Packet>>) -> Self {
        Self {
            packets,
            batch: Vec::new(),
            size: 0,
        }
    }

    fn put(&mut self, packet: Packet, bytes: usize) -> Result<(), SessionError> {
        self.batch.push(packet);
        self.size += PACKET + bytes;
        if self.size < BATCH {
            return Ok(());
        }
        self.flush()
    }

    /// Hands over what there is. Waits while the client is behind.
    fn flush(&mut self) -> Result<(), SessionError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        self.size = 0;
        self.packets
            .blocking_send(std::mem::take(&mut self.batch))
            .map_err(|_| stopped("it stopped listening"))
    }
}

fn stat(entry: DirEntry) -> Stat {
    let (bits, size, linkname, devmajor, devminor) = match entry.kind {
        DirKind::File(size) => (0, size, Vec::new(), 0, 0),
        DirKind::HardLink(target) => (0, 0, target, 0, 0),
        DirKind::Directory => (mode::DIR, 0, Vec::new(), 0, 0),
        DirKind::Symlink(target) => (mode::SYMLINK, 0, target, 0, 0),
        DirKind::Fifo => (mode::NAMED_PIPE, 0, Vec::new(), 0, 0),
        DirKind::Device {
            block: true,
            major,
            minor,
        } => (mode::DEVICE, 0, Vec::new(), major, minor),
        DirKind::Device {
            block: false,
            major,
            minor,
        } => (
            mode::DEVICE | mode::CHAR_DEVICE,
            0,
            Vec::new(),
            major,
            minor,
        ),
    };
    let xattrs = entry
        .xattrs
        .into_iter()
        .filter_map(|(name, value)| Some((String::from_utf8(name).ok()?, value)));
    Stat {
        path: entry.path,
        mode: bits | mode::from_unix(entry.mode),
        size: i64::try_from(size).unwrap_or(i64::MAX),
        mod_time: nanoseconds(entry.mtime),
        linkname,
        devmajor: i64::from(devmajor),
        devminor: i64::from(devminor),
        xattrs: xattrs.collect(),
        ..Default::default()
    }
}
