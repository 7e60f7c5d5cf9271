//! A client in Rust, for what buildx doesn't do: it opens a session, serves nothing but files, and calls the API as
//! it is told.

use std::io;

use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::fsutil::types::{Packet, Stat};
use bollard_buildkit_proto::moby::buildkit::v1::control_client::ControlClient;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_client::LlbBridgeClient;
use bollard_buildkit_proto::moby::buildkit::v1::{BytesMessage, SolveRequest};
use bollard_buildkit_proto::moby::filesync::packet::file_sync_server::{FileSync, FileSyncServer};
use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status, Streaming};

/// A connection to the endpoint.
#[derive(Clone)]
pub(crate) struct Client {
    channel: Channel,
}

/// An open session. Dropped, it is closed.
pub(crate) struct OpenSession {
    pub(crate) id: String,
    _tasks: tokio::task::JoinSet<()>,
}

impl Client {
    pub(crate) async fn connect(address: &str) -> Self {
        let address = address.replace("tcp://", "http://");
        let endpoint = Channel::from_shared(address).expect("a tcp address");
        Self {
            channel: endpoint.connect().await.expect("the endpoint listens"),
        }
    }

    pub(crate) fn control(&self) -> ControlClient<Channel> {
        ControlClient::new(self.channel.clone()).max_encoding_message_size(1 << 30)
    }

    /// The gateway of a build: the request must name it, see [`for_build`].
    pub(crate) fn bridge(&self) -> LlbBridgeClient<Channel> {
        LlbBridgeClient::new(self.channel.clone())
    }

    /// Opens a session that serves `files` as every directory.
    pub(crate) async fn session(&self, files: &[(&str, &str)]) -> OpenSession {
        let id = hex::encode(rand::random::<[u8; 8]>());
        let (near, far) = tokio::io::duplex(64 * 1024);
        let files = files
            .iter()
            .map(|(path, content)| ((*path).to_owned(), (*content).to_owned()))
            .collect();
        let server = Server::builder().add_service(FileSyncServer::new(Files(files)));
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move {
            let incoming = futures::stream::iter([Ok::<_, io::Error>(near)]);
            let _ = server
                .serve_with_incoming(incoming.chain(futures::stream::pending()))
                .await;
        });
        let (outgoing, messages) = mpsc::channel(4);
        let mut request = Request::new(ReceiverStream::new(messages));
        request.metadata_mut().insert(
            "x-docker-expose-session-uuid",
            id.parse().expect("hex digits"),
        );
        let method = "/moby.filesync.v1.FileSync/DiffCopy"
            .parse()
            .expect("plain text");
        request
            .metadata_mut()
            .append("x-docker-expose-session-grpc-method", method);
        let incoming = self
            .control()
            .session(request)
            .await
            .expect("the session opens")
            .into_inner();
        tasks.spawn(pump(far, outgoing, incoming));
        OpenSession { id, _tasks: tasks }
    }
}

impl OpenSession {
    /// A solve in this session.
    pub(crate) fn request(&self, build: &str) -> SolveRequest {
        SolveRequest {
            r#ref: build.to_owned(),
            session: self.id.clone(),
            ..Default::default()
        }
    }
}

/// A gateway request of this build.
pub(crate) fn for_build<T>(build: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(
        "buildkit-controlapi-buildid",
        build.parse().expect("plain text"),
    );
    request
}

async fn pump(
    far: DuplexStream,
    outgoing: mpsc::Sender<BytesMessage>,
    mut incoming: Streaming<BytesMessage>,
) {
    let (mut reader, mut writer) = tokio::io::split(far);
    let up = async {
        let mut data = vec![0; 32 * 1024];
        while let Ok(count @ 1..) = reader.read(&mut data).await {
            let _ = outgoing
                .send(BytesMessage {
                    data: data[..count].to_vec(),
                })
                .await;
        }
    };
    let down = async {
        while let Ok(Some(message)) = incoming.message().await {
            let _ = writer.write_all(&message.data).await;
        }
    };
    tokio::join!(up, down);
}

struct Files(Vec<(String, String)>);

#[tonic::async_trait]
impl FileSync for Files {
    type DiffCopyStream = ReceiverStream<Result<Packet, Status>>;

    async fn diff_copy(
        &self,
        request: Request<Streaming<Packet>>,
    ) -> Result<Response<Self::DiffCopyStream>, Status> {
        let (sender, receiver) = mpsc::channel(4);
        tokio::spawn(serve(self.0.clone(), request.into_inner(), sender));
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

async fn serve(
    files: Vec<(String, String)>,
    mut incoming: Streaming<Packet>,
    outgoing: mpsc::Sender<Result<Packet, Status>>,
) {
    let stats = files.iter().map(|(path, content)| {
        Some(Stat {
            path: path.clone(),
            mode: 0o644,
            size: content.len() as i64,
            ..Default::default()
        })
    });
    for stat in stats.chain([None]) {
        let _ = outgoing
            .send(Ok(Packet {
                stat,
                ..Default::default()
            }))
            .await;
    }
    while let Ok(Some(packet)) = incoming.message().await {
        let id = packet.id;
        let answers = match packet.r#type() {
            PacketType::PacketReq => vec![
                Packet {
                    r#type: PacketType::PacketData as i32,
                    id,
                    data: files[id as usize].1.clone().into(),
                    stat: None,
                },
                Packet {
                    r#type: PacketType::PacketData as i32,
                    id,
                    ..Default::default()
                },
            ],
            PacketType::PacketFin => vec![Packet {
                r#type: PacketType::PacketFin as i32,
                ..Default::default()
            }],
            _ => Vec::new(),
        };
        for answer in answers {
            let _ = outgoing.send(Ok(answer)).await;
        }
    }
}
