//! A directory for the client: the sending end of the file protocol.

use std::collections::{BTreeMap, HashMap};
use std::io;

use async_trait::async_trait;
use buildyard_layer::Time;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tonic::Streaming;
use tonic_prost::ProstCodec;

use super::{DIFF_COPY, headers};
use crate::go_mode as mode;
use crate::wire::{Packet, PacketType, Stat, nanoseconds};
use crate::{Session, SessionError};

/// Bytes of content in one packet, as fsutil sends.
const CHUNK: usize = 32 * 1024;

/// The content of a file.
pub type FileReader = Box<dyn AsyncRead + Send + Unpin>;

/// What is to be sent: a tree whose files are read when the client asks for them.
#[async_trait]
pub trait DirSource: Send + Sync {
    /// Every path, sorted component by component as in a TOC, directories included.
    fn entries(&self) -> BoxStream<'_, io::Result<DirEntry>>;

    /// The content of the file at `path`, exactly as long as its entry says.
    async fn open(&self, path: &[u8]) -> io::Result<FileReader>;
}

/// A path to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Relative, without `.` or `..`.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: DirKind,
    /// Unix permission bits, `0o7777`. Clients make the owner theirs.
    pub mode: u32,
    /// Modification time.
    pub mtime: Time,
    /// Extended attributes; names that are not UTF-8 are not sent.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// The types of paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DirKind {
    /// A regular file of this many bytes.
    File(u64),
    /// A further name of the file at the given path, which came before.
    HardLink(Vec<u8>),
    /// A directory.
    Directory,
    /// A symbolic link with its target.
    Symlink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A device; `block` or character.
    Device {
        /// A block device.
        block: bool,
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

impl Session {
    /// Sends the tree to the client's output number `exporter` and waits until the client has written it. Returns the
    /// bytes of contents sent.
    pub async fn send_dir(
        &self,
        exporter: usize,
        source: &dyn DirSource,
    ) -> Result<u64, SessionError> {
        self.require(DIFF_COPY, "the result is to be sent to it")?;
        let (sender, receiver) = mpsc::channel::<Packet>(32);
        let mut call = tonic::Request::new(tokio_stream::wrappers::ReceiverStream::new(receiver));
        *call.metadata_mut() = headers(exporter, []);
        let start = async {
            let mut grpc = tonic::client::Grpc::new(self.channel());
            grpc.ready()
                .await
                .map_err(|err| tonic::Status::unavailable(err.to_string()))?;
            let codec: ProstCodec<Packet, Packet> = ProstCodec::default();
            grpc.streaming(call, DIFF_COPY.parse().expect("a constant path"), codec)
                .await
        };
        let (requests, queue) = mpsc::unbounded_channel();
        let (known, ids) = mpsc::unbounded_channel();
        let send = send(source, sender, queue, known);
        // The client's answer begins with its first packet, which it sends when it has some of ours.
        let listen = async {
            let incoming = start.await.map_err(refused)?.into_inner();
            listen(incoming, requests, ids).await
        };
        let both = async { tokio::try_join!(send, listen) };
        self.while_open(both).await.map(|(bytes, ())| bytes)
    }
}

/// Sends the paths and, between them and after them, the contents that the client asks for. Ends when the client has
/// said FIN, that is, when the queue of requests is closed.
async fn send(
    source: &dyn DirSource,
    packets: mpsc::Sender<Packet>,
    mut queue: mpsc::UnboundedReceiver<(u32, Vec<u8>)>,
    known: mpsc::UnboundedSender<(u32, Vec<u8>)>,
) -> Result<u64, SessionError> {
    let mut entries = source.entries();
    let mut id = 0_u32;
    while let Some(entry) = entries.next().await {
        let entry = entry.map_err(SessionError::Source)?;
        if matches!(entry.kind, DirKind::File(_)) {
            let _ = known.send((id, entry.path.clone()));
        }
        put(&packets, Packet::stat(Some(stat(entry)))).await?;
        id += 1;
    }
    drop(known);
    put(&packets, Packet::stat(None)).await?;
    let mut bytes = 0;
    while let Some((id, path)) = queue.recv().await {
        bytes += send_file(source, &packets, id, &path).await?;
    }
    put(&packets, Packet::of(PacketType::Fin)).await?;
    Ok(bytes)
}

async fn send_file(
    source: &dyn DirSource,
    packets: &mpsc::Sender<Packet>,
    id: u32,
    path: &[u8],
) -> Result<u64, SessionError> {
    let mut reader = source.open(path).await.map_err(SessionError::Source)?;
    let mut sent = 0;
    loop {
        let mut chunk = BytesMut::with_capacity(CHUNK);
        while chunk.len() < CHUNK
            && reader
                .read_buf(&mut chunk)
                .await
                .map_err(SessionError::Source)?
                > 0
        {}
        if chunk.is_empty() {
            break;
        }
        sent += chunk.len() as u64;
        put(packets, Packet::data(id, chunk.freeze())).await?;
    }
    put(packets, Packet::data(id, Bytes::new())).await?;
    Ok(sent)
}

/// Reads what the client says. Never waits for the sending side: a client may ask for a thousand files before it
/// reads the first. The queues are bounded by the number of files, as each is asked for once.
async fn listen(
    mut incoming: Streaming<Packet>,
    requests: mpsc::UnboundedSender<(u32, Vec<u8>)>,
    mut ids: mpsc::UnboundedReceiver<(u32, Vec<u8>)>,
) -> Result<(), SessionError> {
    let refuse = |text: String| refused(tonic::Status::aborted(text));
    let mut files: HashMap<u32, Vec<u8>> = HashMap::new();
    let mut requests = Some(requests);
    while let Some(packet) = incoming.message().await.map_err(refused)? {
        while let Ok((id, path)) = ids.try_recv() {
            files.insert(id, path);
        }
        match PacketType::try_from(packet.r#type) {
            Ok(PacketType::Req) => {
                let path = files.remove(&packet.id).ok_or_else(|| {
                    refuse(format!("it asked for file {}, which it may not", packet.id))
                })?;
                if let Some(requests) = &requests {
                    let _ = requests.send((packet.id, path));
                }
            }
            Ok(PacketType::Fin) => requests = None,
            Ok(PacketType::Err) => {
                return Err(refuse(String::from_utf8_lossy(&packet.data).into_owned()));
            }
            other => return Err(refuse(format!("it sent an unexpected packet {other:?}"))),
        }
    }
    if requests.is_some() {
        return Err(refuse("it stopped before it had everything".to_owned()));
    }
    Ok(())
}

async fn put(packets: &mpsc::Sender<Packet>, packet: Packet) -> Result<(), SessionError> {
    packets
        .send(packet)
        .await
        .map_err(|_| refused(tonic::Status::aborted("it stopped listening")))
}

fn refused(status: tonic::Status) -> SessionError {
    SessionError::refused("sending the result's files to the client", status)
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
