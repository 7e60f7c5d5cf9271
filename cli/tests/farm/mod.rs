//! The smallest farm: one session, one build, scripted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bollard_buildkit_proto::fsutil::types::Packet;
use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::google::protobuf::{Any, Timestamp};
use bollard_buildkit_proto::google::rpc;
use bollard_buildkit_proto::moby::buildkit::secrets::v1::GetSecretRequest;
use bollard_buildkit_proto::moby::buildkit::secrets::v1::secrets_client::SecretsClient;
use bollard_buildkit_proto::moby::buildkit::v1::control_server::{Control, ControlServer};
use bollard_buildkit_proto::moby::buildkit::v1::*;
use bollard_buildkit_proto::moby::filesync::packet::file_sync_client::FileSyncClient;
use bollard_buildkit_proto::moby::filesync::v1::BytesMessage as ExportChunk;
use bollard_buildkit_proto::moby::filesync::v1::file_send_client::FileSendClient;
use buildyard_cli::buildkit::tunnel;
use futures::stream::BoxStream;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

/// What the farm does with the build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behaviour {
    Succeed,
    Fail,
    Hang,
    Vanish,
}

pub(crate) struct FakeFarm {
    url: String,
    state: State,
    _server: AbortOnDropHandle<()>,
}

type StatusItem = Result<StatusResponse, Status>;

#[derive(Clone)]
struct State {
    behaviour: Behaviour,
    session: watch::Sender<Option<Channel>>,
    status: Arc<Mutex<Option<mpsc::Sender<StatusItem>>>>,
    receiver: Arc<Mutex<Option<mpsc::Receiver<StatusItem>>>>,
    methods: Arc<Mutex<Vec<String>>>,
    canceled: CancellationToken,
    gone: CancellationToken,
}

impl FakeFarm {
    pub(crate) async fn start(behaviour: Behaviour) -> Self {
        let (sender, receiver) = mpsc::channel(8);
        let state = State {
            behaviour,
            session: watch::channel(None).0,
            status: Arc::new(Mutex::new(Some(sender))),
            receiver: Arc::new(Mutex::new(Some(receiver))),
            methods: Arc::default(),
            canceled: CancellationToken::new(),
            gone: CancellationToken::new(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = Server::builder().add_service(ControlServer::new(state.clone()));
        let gone = state.gone.clone();
        let serving = tokio::spawn(async move {
            tokio::select! {
                ended = server.serve_with_incoming(TcpListenerStream::new(listener)) => ended.unwrap(),
                () = gone.cancelled() => {}
            }
        });
        Self {
            url,
            state,
            _server: AbortOnDropHandle::new(serving),
        }
    }

    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }

    pub(crate) fn methods(&self) -> Vec<String> {
        self.state.methods.lock().unwrap().clone()
    }

    pub(crate) fn was_canceled(&self) -> bool {
        self.state.canceled.is_cancelled()
    }
}

/// Says one more step when the solve is dropped in the middle, as a farm does when its client cancels.
struct OnCancel(Option<State>);

impl Drop for OnCancel {
    fn drop(&mut self) {
        if let Some(state) = self.0.take() {
            state.canceled.cancel();
            state.say("canceled");
            state.end_status();
        }
    }
}

impl State {
    fn say(&self, name: &str) {
        let time = Some(Timestamp {
            seconds: 1,
            nanos: 0,
        });
        let vertex = Vertex {
            digest: name.into(),
            name: name.into(),
            started: time,
            completed: time,
            ..Vertex::default()
        };
        let message = StatusResponse {
            vertexes: vec![vertex],
            ..StatusResponse::default()
        };
        let _ = self
            .status
            .lock()
            .unwrap()
            .as_ref()
            .unwrap()
            .try_send(Ok(message));
    }

    fn end_status(&self) {
        self.status.lock().unwrap().take();
    }

    async fn build(&self, request: SolveRequest) -> Result<HashMap<String, String>, Status> {
        let mut sessions = self.session.subscribe();
        let session = sessions
            .wait_for(Option::is_some)
            .await
            .unwrap()
            .clone()
            .unwrap();
        let file = &request.frontend_attrs["filename"];
        let dockerfile = read_file(session.clone(), "dockerfile", file).await?;
        let get = GetSecretRequest {
            id: "s".into(),
            ..GetSecretRequest::default()
        };
        let secret = SecretsClient::new(session.clone())
            .get_secret(get)
            .await?
            .into_inner()
            .data;
        let mut export = Request::new(tokio_stream::iter(
            ["expo", "rted"].map(|t| ExportChunk { data: t.into() }),
        ));
        export
            .metadata_mut()
            .insert("buildkit-attachable-exporter-id", 0.into());
        let mut end = FileSendClient::new(session)
            .diff_copy(export)
            .await?
            .into_inner();
        assert!(end.message().await?.is_none());
        Ok(HashMap::from([
            ("dockerfile".to_owned(), dockerfile),
            ("secret".to_owned(), String::from_utf8(secret).unwrap()),
            ("frontend".to_owned(), request.frontend),
        ]))
    }
}

async fn read_file(session: Channel, dir: &str, name: &str) -> Result<String, Status> {
    let (outgoing, packets) = mpsc::channel(4);
    let mut request = Request::new(ReceiverStream::new(packets));
    request
        .metadata_mut()
        .insert("dir-name", dir.parse().unwrap());
    request
        .metadata_mut()
        .append("followpaths", name.parse().unwrap());
    let packet = |kind: PacketType| Packet {
        r#type: kind.into(),
        ..Packet::default()
    };
    let mut incoming = FileSyncClient::new(session)
        .diff_copy(request)
        .await?
        .into_inner();
    let mut text = Vec::new();
    while let Some(message) = incoming.message().await? {
        match message.r#type() {
            PacketType::PacketStat if message.stat.is_some() => {
                outgoing.send(packet(PacketType::PacketReq)).await.unwrap();
            }
            PacketType::PacketData if message.data.is_empty() => {
                outgoing.send(packet(PacketType::PacketFin)).await.unwrap();
            }
            PacketType::PacketData => text.extend(message.data),
            PacketType::PacketFin => break,
            _ => {}
        }
    }
    Ok(String::from_utf8(text).unwrap())
}

fn failure() -> Status {
    let json = r#"{"info":{"filename":"Dockerfile","data":"RlJPTSBzY3JhdGNoCg=="},"ranges":[{"start":{"line":1},"end":{"line":1}}]}"#;
    let any = Any {
        type_url: "github.com/moby/buildkit/errdefs.Source+json".into(),
        value: json.into(),
    };
    let details = rpc::Status {
        code: 2,
        message: "exit code: 1".into(),
        details: vec![any],
    };
    Status::with_details(
        tonic::Code::Unknown,
        "exit code: 1",
        details.encode_to_vec().into(),
    )
}

#[tonic::async_trait]
impl Control for State {
    type PruneStream = BoxStream<'static, Result<UsageRecord, Status>>;
    type StatusStream = ReceiverStream<StatusItem>;
    type SessionStream = BoxStream<'static, Result<BytesMessage, Status>>;
    type ListenBuildHistoryStream = BoxStream<'static, Result<BuildHistoryEvent, Status>>;

    async fn solve(
        &self,
        request: Request<SolveRequest>,
    ) -> Result<Response<SolveResponse>, Status> {
        self.say("first");
        match self.behaviour {
            Behaviour::Hang => {
                let _guard = OnCancel(Some(self.clone()));
                std::future::pending::<()>().await;
            }
            Behaviour::Vanish => {
                self.gone.cancel();
                return Err(Status::unavailable("shutting down"));
            }
            Behaviour::Fail => {
                self.end_status();
                return Err(failure());
            }
            Behaviour::Succeed => {}
        }
        let exporter_response = self.build(request.into_inner()).await?;
        let state = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            state.say("last");
            state.end_status();
        });
        Ok(Response::new(SolveResponse { exporter_response }))
    }

    async fn status(
        &self,
        _: Request<StatusRequest>,
    ) -> Result<Response<Self::StatusStream>, Status> {
        let receiver = self.receiver.lock().unwrap().take().unwrap();
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn session(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let announced = request
            .metadata()
            .get_all("x-docker-expose-session-grpc-method");
        self.methods.lock().unwrap().extend(
            announced
                .iter()
                .map(|value| value.to_str().unwrap().to_owned()),
        );
        assert!(
            request
                .metadata()
                .contains_key("x-docker-expose-session-uuid")
        );
        let (outgoing, messages) = mpsc::channel(16);
        let mut stream = Some(tunnel(request.into_inner(), outgoing));
        let session = self.session.clone();
        tokio::spawn(async move {
            let connector = tower::service_fn(move |_: http::Uri| {
                let stream = stream
                    .take()
                    .ok_or_else(|| std::io::Error::other("one connection only"));
                async move { stream.map(TokioIo::new) }
            });
            let channel = Endpoint::from_static("http://session")
                .connect_with_connector(connector)
                .await
                .unwrap();
            session.send_replace(Some(channel));
        });
        let messages = futures::StreamExt::map(ReceiverStream::new(messages), Ok);
        Ok(Response::new(Box::pin(messages)))
    }

    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        Ok(Response::new(InfoResponse::default()))
    }

    async fn disk_usage(
        &self,
        _: Request<DiskUsageRequest>,
    ) -> Result<Response<DiskUsageResponse>, Status> {
        Err(Status::unimplemented("no"))
    }

    async fn prune(&self, _: Request<PruneRequest>) -> Result<Response<Self::PruneStream>, Status> {
        Err(Status::unimplemented("no"))
    }

    async fn list_workers(
        &self,
        _: Request<ListWorkersRequest>,
    ) -> Result<Response<ListWorkersResponse>, Status> {
        Err(Status::unimplemented("no"))
    }

    async fn listen_build_history(
        &self,
        _: Request<BuildHistoryRequest>,
    ) -> Result<Response<Self::ListenBuildHistoryStream>, Status> {
        Err(Status::unimplemented("no"))
    }

    async fn update_build_history(
        &self,
        _: Request<UpdateBuildHistoryRequest>,
    ) -> Result<Response<UpdateBuildHistoryResponse>, Status> {
        Err(Status::unimplemented("no"))
    }
}
