//! A client by hand: calls of BuildKit's API, and sessions that behave as a test wants.

use std::sync::atomic::{AtomicU32, Ordering};

use bollard_buildkit_proto::moby::buildkit::v1::control_client::ControlClient;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_client::LlbBridgeClient;
use bollard_buildkit_proto::moby::buildkit::v1::{BytesMessage, SolveRequest, SolveResponse};
use bollard_buildkit_proto::pb;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

use crate::files::{Files, Sends};

/// A connection to a farm.
pub(crate) struct Client {
    pub(crate) control: ControlClient<Channel>,
    pub(crate) bridge: LlbBridgeClient<Channel>,
}

/// An open session; it ends when dropped.
pub(crate) struct Session {
    pub(crate) id: String,
    _tasks: Vec<tokio::task::JoinHandle<()>>,
    stop: Vec<tokio::task::AbortHandle>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.stop.iter().for_each(tokio::task::AbortHandle::abort);
    }
}

fn new_id() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("raw{}x{number}", std::process::id())
}

impl Client {
    pub(crate) fn connect(url: &str) -> Self {
        let endpoint: Endpoint = url.parse().expect("a URL");
        let channel = endpoint.connect_lazy();
        Self {
            control: ControlClient::new(channel.clone()),
            bridge: LlbBridgeClient::new(channel),
        }
    }

    /// Opens a session's stream: what is sent into the returned sender goes out, what comes in is the stream.
    pub(crate) async fn stream(
        &self,
        id: &str,
    ) -> Result<(mpsc::Sender<BytesMessage>, Streaming<BytesMessage>), Status> {
        let (outgoing, messages) = mpsc::channel(16);
        let mut request = Request::new(ReceiverStream::new(messages));
        let metadata = request.metadata_mut();
        if !id.is_empty() {
            metadata.insert("x-docker-expose-session-uuid", id.parse().expect("ASCII"));
        }
        for method in [
            "/moby.filesync.v1.FileSync/DiffCopy",
            "/grpc.health.v1.Health/Check",
        ] {
            let method = method.parse().expect("ASCII");
            metadata.append("x-docker-expose-session-grpc-method", method);
        }
        let incoming = self.control.clone().session(request).await?.into_inner();
        Ok((outgoing, incoming))
    }

    /// A session that serves the Dockerfile and the context as they are told.
    pub(crate) async fn session(&self, dockerfile: Sends, context: Sends) -> Session {
        let id = new_id();
        let (outgoing, incoming) = self.stream(&id).await.expect("the session opens");
        let (near, far) = tokio::io::duplex(64 << 10);
        let serving = tokio::spawn(Files::new(dockerfile, context).serve(far));
        let (reading, writing) = tokio::io::split(near);
        let tasks = vec![
            serving,
            tokio::spawn(send_all(reading, outgoing)),
            tokio::spawn(receive_all(incoming, writing)),
        ];
        Session {
            id,
            stop: tasks.iter().map(|task| task.abort_handle()).collect(),
            _tasks: tasks,
        }
    }

    /// A session whose client never says a word.
    pub(crate) async fn silent_session(&self) -> Session {
        let id = new_id();
        let stream = self.stream(&id).await.expect("the session opens");
        let task = tokio::spawn(async move {
            let _open = stream;
            std::future::pending::<()>().await;
        });
        Session {
            id,
            stop: vec![task.abort_handle()],
            _tasks: vec![task],
        }
    }

    /// Solves a graph.
    pub(crate) async fn solve_graph(
        &self,
        session: &Session,
        graph: pb::Definition,
    ) -> Result<SolveResponse, Status> {
        self.solve(SolveRequest {
            r#ref: new_id(),
            session: session.id.clone(),
            definition: Some(graph),
            ..SolveRequest::default()
        })
        .await
    }

    /// Builds the session's Dockerfile.
    pub(crate) async fn build(&self, session: &Session) -> Result<SolveResponse, Status> {
        self.solve(SolveRequest {
            r#ref: new_id(),
            session: session.id.clone(),
            frontend: "dockerfile.v0".to_owned(),
            ..SolveRequest::default()
        })
        .await
    }

    pub(crate) async fn solve(&self, request: SolveRequest) -> Result<SolveResponse, Status> {
        let solved = self.control.clone().solve(request).await;
        solved.map(tonic::Response::into_inner)
    }
}

async fn send_all(mut from: tokio::io::ReadHalf<DuplexStream>, to: mpsc::Sender<BytesMessage>) {
    let mut buffer = vec![0; 32 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let data = buffer[..count].to_vec();
        if to.send(BytesMessage { data }).await.is_err() {
            return;
        }
    }
}

async fn receive_all(
    mut from: Streaming<BytesMessage>,
    mut to: tokio::io::WriteHalf<DuplexStream>,
) {
    while let Ok(Some(message)) = from.message().await {
        if to.write_all(&message.data).await.is_err() {
            return;
        }
    }
}
