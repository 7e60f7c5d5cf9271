//! A directory for the client: the sending end of the file protocol.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;

use buildyard_layer::Time;
use futures::StreamExt;
use tokio::sync::mpsc;
use tonic::Streaming;
use tonic_prost::ProstCodec;

use super::feed::{self, ASKED_WITHIN, BATCHES};
use super::{DIFF_COPY, headers};
use crate::wire::{Packet, PacketType};
use crate::{Session, SessionError};

/// What is to be sent: paths by their numbers, whose files are read when the client asks for them. All of it is called
/// from one thread that may block.
pub trait DirSource: Send + Sync {
    /// How many paths there are, directories included.
    fn paths(&self) -> usize;

    /// The path with this number, below [`DirSource::paths`]. They are sorted component by component as in a TOC.
    fn entry(&self, number: usize) -> DirEntry;

    /// The content of the file with this number, exactly as long as its entry says.
    fn open(&self, number: usize) -> io::Result<Box<dyn Read + '_>>;
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
        source: Arc<dyn DirSource>,
    ) -> Result<u64, SessionError> {
        self.require(DIFF_COPY, "the result is to be sent to it")?;
        let (sender, receiver) = mpsc::channel::<Vec<Packet>>(BATCHES);
        let batches = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let mut call = tonic::Request::new(batches.flat_map(futures::stream::iter));
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
        let paths = source.paths();
        let (requests, queue) = std::sync::mpsc::channel();
        // Ends when its packets are no longer taken, or nobody can ask any more.
        let feeding =
            tokio::task::spawn_blocking(move || feed::run(&*source, &sender, queue, ASKED_WITHIN));
        let send = async { feeding.await.expect("sending does not panic") };
        // The client's answer begins with its first packet, which it sends when it has some of ours.
        let listen = async {
            let incoming = start.await.map_err(refused)?.into_inner();
            listen(incoming, requests, paths).await
        };
        let both = async { tokio::try_join!(send, listen) };
        self.while_open(both).await.map(|(bytes, ())| bytes)
    }
}

/// Reads what the client says. Never waits for the sending side: a client may ask for a thousand files before it
/// reads the first. The queue is bounded by the number of paths, as each is asked for once.
async fn listen(
    mut incoming: Streaming<Packet>,
    requests: std::sync::mpsc::Sender<u32>,
    paths: usize,
) -> Result<(), SessionError> {
    let mut requests = Some(requests);
    let mut asked = 0;
    while let Some(packet) = incoming.message().await.map_err(refused)? {
        match PacketType::try_from(packet.r#type) {
            Ok(PacketType::Req) => {
                asked += 1;
                if asked > paths {
                    return Err(stopped("it asked for more files than there are"));
                }
                if let Some(requests) = &requests {
                    let _ = requests.send(packet.id);
                }
            }
            Ok(PacketType::Fin) => requests = None,
            Ok(PacketType::Err) => return Err(stopped(&String::from_utf8_lossy(&packet.data))),
            other => {
                return Err(stopped(&format!("it sent an unexpected packet {other:?}")));
            }
        }
    }
    if requests.is_some() {
        return Err(stopped("it stopped before it had everything"));
    }
    Ok(())
}

/// What went wrong with the client.
pub(super) fn stopped(why: &str) -> SessionError {
    refused(tonic::Status::aborted(why))
}

fn refused(status: tonic::Status) -> SessionError {
    SessionError::refused("sending the result's files to the client", status)
}
