//! The client's side of the file transfer, good and bad.

use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::fsutil::types::{Packet, Stat};
use bollard_buildkit_proto::health::health_server::{Health, HealthServer};
use bollard_buildkit_proto::health::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
};
use bollard_buildkit_proto::moby::filesync::packet::file_sync_server::{FileSync, FileSyncServer};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// What a client sends when one of its directories is asked for.
#[derive(Debug, Clone)]
pub(crate) enum Sends {
    /// These files, as it should.
    Files(Vec<(&'static str, Vec<u8>)>),
    /// These packets whatever it is asked, and then nothing any more.
    Packets(Vec<Packet>),
    /// This packet again and again; its path, if it has one, gets a number.
    Endless(Packet),
}

impl Sends {
    pub(crate) fn dockerfile(text: &str) -> Self {
        Self::Files(vec![("Dockerfile", text.as_bytes().to_vec())])
    }

    pub(crate) fn nothing() -> Self {
        Self::Files(Vec::new())
    }
}

pub(crate) fn packet(kind: PacketType, id: u32, data: &[u8]) -> Packet {
    Packet {
        r#type: kind.into(),
        id,
        data: data.to_vec(),
        stat: None,
    }
}

/// The end of the paths, if `stat` is none.
pub(crate) fn stat_packet(stat: Option<Stat>) -> Packet {
    Packet {
        stat,
        ..packet(PacketType::PacketStat, 0, b"")
    }
}

pub(crate) fn file(path: &str, size: i64) -> Packet {
    stat_packet(Some(Stat {
        path: path.to_owned(),
        mode: 0o644,
        size,
        ..Stat::default()
    }))
}

pub(crate) fn link(path: &str, target: &str) -> Packet {
    // Go's os.ModeSymlink.
    stat_packet(Some(Stat {
        path: path.to_owned(),
        mode: 1 << 27 | 0o777,
        linkname: target.to_owned(),
        ..Stat::default()
    }))
}

/// The services of a session.
#[derive(Clone)]
pub(crate) struct Files {
    dockerfile: Sends,
    context: Sends,
}

impl Files {
    pub(crate) fn new(dockerfile: Sends, context: Sends) -> Self {
        Self {
            dockerfile,
            context,
        }
    }

    pub(crate) async fn serve(self, connection: DuplexStream) {
        let incoming = tokio_stream::iter([Ok::<_, std::io::Error>(connection)]);
        let server = tonic::transport::Server::builder()
            .add_service(FileSyncServer::new(self))
            .add_service(HealthServer::new(Alive));
        // It ends with the connection, whatever the reason.
        let _ = server.serve_with_incoming(incoming).await;
    }
}

#[tonic::async_trait]
impl FileSync for Files {
    type DiffCopyStream = ReceiverStream<Result<Packet, Status>>;

    async fn diff_copy(
        &self,
        request: Request<Streaming<Packet>>,
    ) -> Result<Response<Self::DiffCopyStream>, Status> {
        let header = |name| {
            let values = request.metadata().get_all(name).iter();
            values
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
                .collect::<String>()
        };
        let ignore_file = header("followpaths").contains(".dockerignore");
        let sends = match header("dir-name").as_str() {
            "dockerfile" => self.dockerfile.clone(),
            _ if ignore_file => Sends::nothing(),
            _ => self.context.clone(),
        };
        let (sender, receiver) = mpsc::channel(4);
        tokio::spawn(send(sends, request.into_inner(), sender));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    type TarStreamStream = ReceiverStream<Result<Packet, Status>>;

    async fn tar_stream(
        &self,
        _: Request<Streaming<Packet>>,
    ) -> Result<Response<Self::TarStreamStream>, Status> {
        Err(Status::unimplemented("not by this client"))
    }
}

type Outgoing = mpsc::Sender<Result<Packet, Status>>;

async fn send(sends: Sends, mut incoming: Streaming<Packet>, outgoing: Outgoing) {
    match sends {
        Sends::Files(files) => serve_files(&files, &mut incoming, &outgoing).await,
        Sends::Packets(packets) => {
            for packet in packets {
                if outgoing.send(Ok(packet)).await.is_err() {
                    return;
                }
            }
            // Silence, until the other side has had enough.
            while let Ok(Some(_)) = incoming.message().await {}
        }
        Sends::Endless(packet) => {
            let mut number = 0_u64;
            loop {
                let mut packet = packet.clone();
                if let Some(stat) = &mut packet.stat {
                    stat.path = format!("{}{number:012}", stat.path);
                }
                number += 1;
                if outgoing.send(Ok(packet)).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn serve_files(
    files: &[(&str, Vec<u8>)],
    incoming: &mut Streaming<Packet>,
    outgoing: &Outgoing,
) {
    let mut answers: Vec<Packet> = files
        .iter()
        .map(|(path, content)| file(path, i64::try_from(content.len()).expect("small")))
        .collect();
    answers.push(stat_packet(None));
    loop {
        for answer in answers.drain(..) {
            if outgoing.send(Ok(answer)).await.is_err() {
                return;
            }
        }
        let Ok(Some(asked)) = incoming.message().await else {
            return;
        };
        let content = files
            .get(asked.id as usize)
            .map(|(_, content)| content.as_slice());
        match (asked.r#type(), content) {
            (PacketType::PacketReq, Some(content)) => {
                answers.push(packet(PacketType::PacketData, asked.id, content));
                answers.push(packet(PacketType::PacketData, asked.id, b""));
            }
            _ => answers.push(packet(PacketType::PacketFin, 0, b"")),
        }
    }
}

/// A client that is there.
struct Alive;

#[tonic::async_trait]
impl Health for Alive {
    async fn check(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(HealthCheckResponse { status: 1 }))
    }

    async fn list(
        &self,
        _: Request<HealthListRequest>,
    ) -> Result<Response<HealthListResponse>, Status> {
        Err(Status::unimplemented("not by this client"))
    }

    type WatchStream = ReceiverStream<Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("not by this client"))
    }
}
