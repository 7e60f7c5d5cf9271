//! Clients for this crate's tests: gRPC servers at the other end of a pipe in memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::fsutil::types::{Packet, Stat};
use bollard_buildkit_proto::moby::filesync::packet::file_sync_server::{FileSync, FileSyncServer};
use buildyard_layer::{Kind, Toc};
use buildyard_model::FlatId;
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Router;
use tonic::{Request, Response, Status, Streaming};

use crate::{Pack, PackError, Session, SessionInfo, tunnel};

/// A session whose client is `server`, offering `methods`.
pub(crate) fn session(server: Router, methods: &[&str]) -> Session {
    let (near, far) = tokio::io::duplex(64 * 1024);
    tokio::spawn(server.serve_with_incoming(futures::stream::iter([Ok::<_, std::io::Error>(far)])));
    let methods = methods
        .iter()
        .map(|method| method.to_ascii_lowercase())
        .collect();
    let info = SessionInfo {
        id: "test".to_owned(),
        methods,
        ..Default::default()
    };
    Session::new(info, tunnel::over(near), CancellationToken::new())
}

type Outgoing = mpsc::Sender<Result<Packet, Status>>;
type Behaviour = Arc<dyn Fn(Streaming<Packet>, Outgoing) -> BoxFuture<'static, ()> + Send + Sync>;

/// A client that behaves as it is told when its files are asked for.
pub(crate) struct Files(pub(crate) Behaviour);

impl Files {
    pub(crate) fn session(self) -> Session {
        let server = tonic::transport::Server::builder().add_service(FileSyncServer::new(self));
        session(server, &["/moby.filesync.v1.FileSync/DiffCopy"])
    }

    /// Sends these packets whatever it is asked, then waits for the stream's end.
    pub(crate) fn saying(packets: Vec<Packet>) -> Session {
        let behave = move |mut incoming: Streaming<Packet>, outgoing: Outgoing| {
            let packets = packets.clone();
            Box::pin(async move {
                for packet in packets {
                    if outgoing.send(Ok(packet)).await.is_err() {
                        return;
                    }
                }
                while let Ok(Some(_)) = incoming.message().await {}
            }) as BoxFuture<'static, ()>
        };
        Self(Arc::new(behave)).session()
    }

    /// Behaves as fsutil's sender does: paths, then the contents asked for, interleaved in pieces of `piece` bytes.
    pub(crate) fn serving(files: Vec<(Stat, Vec<u8>)>, piece: usize) -> Session {
        let behave = move |incoming: Streaming<Packet>, outgoing: Outgoing| {
            Box::pin(serve(files.clone(), piece, incoming, outgoing)) as BoxFuture<'static, ()>
        };
        Self(Arc::new(behave)).session()
    }
}

async fn serve(
    files: Vec<(Stat, Vec<u8>)>,
    piece: usize,
    mut incoming: Streaming<Packet>,
    outgoing: Outgoing,
) {
    for (stat, _) in &files {
        let _ = outgoing.send(Ok(stat_packet(Some(stat.clone())))).await;
    }
    let _ = outgoing.send(Ok(stat_packet(None))).await;
    let mut open: Vec<(u32, Vec<u8>)> = Vec::new();
    let mut ended = false;
    while !ended {
        let packet = tokio::select! {
            biased;
            packet = incoming.message() => packet,
            () = std::future::ready(()), if !open.is_empty() => {
                let (id, mut rest) = open.remove(0);
                let data: Vec<u8> = rest.drain(..piece.min(rest.len())).collect();
                let last = data.is_empty();
                let _ = outgoing.send(Ok(packet(PacketType::PacketData, id, data))).await;
                if !last {
                    open.push((id, rest));
                }
                continue;
            }
        };
        let Ok(Some(packet)) = packet else { return };
        match packet.r#type() {
            PacketType::PacketReq => open.push((packet.id, files[packet.id as usize].1.clone())),
            PacketType::PacketFin => ended = true,
            other => panic!("a receiver sent {other:?}"),
        }
    }
    let _ = outgoing
        .send(Ok(packet(PacketType::PacketFin, 0, Vec::new())))
        .await;
}

pub(crate) fn packet(r#type: PacketType, id: u32, data: Vec<u8>) -> Packet {
    Packet {
        r#type: r#type as i32,
        id,
        data,
        stat: None,
    }
}

pub(crate) fn stat_packet(stat: Option<Stat>) -> Packet {
    Packet {
        stat,
        ..packet(PacketType::PacketStat, 0, Vec::new())
    }
}

#[tonic::async_trait]
impl FileSync for Files {
    type DiffCopyStream = ReceiverStream<Result<Packet, Status>>;

    async fn diff_copy(
        &self,
        request: Request<Streaming<Packet>>,
    ) -> Result<Response<Self::DiffCopyStream>, Status> {
        let (sender, receiver) = mpsc::channel(4);
        tokio::spawn((self.0)(request.into_inner(), sender));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    type TarStreamStream = ReceiverStream<Result<Packet, Status>>;

    async fn tar_stream(
        &self,
        _: Request<Streaming<Packet>>,
    ) -> Result<Response<Self::TarStreamStream>, Status> {
        Err(Status::unimplemented("not in these tests"))
    }
}

/// Packs in memory.
#[derive(Clone, Default)]
pub(crate) struct Packs {
    finished: Arc<Mutex<HashMap<FlatId, Vec<u8>>>>,
}

struct MemoryPack {
    packs: Packs,
    bytes: Vec<u8>,
}

impl Packs {
    pub(crate) fn create(&self) -> Box<dyn Pack> {
        Box::new(MemoryPack {
            packs: self.clone(),
            bytes: Vec::new(),
        })
    }

    pub(crate) fn count(&self) -> usize {
        self.finished.lock().unwrap().len()
    }

    /// Every file's content by path.
    pub(crate) fn contents(&self, toc: &Toc) -> Vec<(String, Vec<u8>)> {
        let finished = self.finished.lock().unwrap();
        let files = toc.entries.iter().filter_map(|entry| {
            let Kind::File { size, extents, .. } = &entry.kind else {
                return None;
            };
            let mut content = vec![0; *size as usize];
            for extent in extents {
                assert_eq!(extent.offset % 512, 0);
                let flat = &finished[&toc.flats[extent.flat as usize]];
                let from = &flat[extent.offset as usize..][..extent.length as usize];
                content[extent.at as usize..][..from.len()].copy_from_slice(from);
            }
            Some((String::from_utf8_lossy(&entry.path).into_owned(), content))
        });
        files.collect()
    }
}

impl Pack for MemoryPack {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), PackError> {
        let end = offset as usize + bytes.len();
        self.bytes.resize(self.bytes.len().max(end), 0);
        self.bytes[offset as usize..end].copy_from_slice(bytes);
        Ok(())
    }

    fn finish(mut self: Box<Self>, length: u64) -> Result<FlatId, PackError> {
        self.bytes.resize(length as usize, 0);
        let id = FlatId::from_bytes(rand::random());
        self.packs.finished.lock().unwrap().insert(id, self.bytes);
        Ok(id)
    }
}
