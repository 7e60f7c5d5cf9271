//! The session: an HTTP/2 connection inside `Control.Session`, on which this process serves the farm's requests for
//! files, credentials and secrets, and receives exports.
//!
//! Header names are BuildKit's (`session/session.go`). The session lives as long as its `run` future.

use std::convert::Infallible;

use bollard_buildkit_proto::moby::buildkit::secrets::v1::secrets_server::SecretsServer;
use bollard_buildkit_proto::moby::buildkit::v1::control_client::ControlClient;
use bollard_buildkit_proto::moby::filesync::v1::auth_server::AuthServer;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Routes;
use tonic::transport::Channel;

use super::export::FileSendService;
use super::filesync::FileSyncService;
use super::health::HealthService;
use super::tunnel::Tunnel;
use super::{Credentials, SecretStore, tunnel};

/// The methods that a session announces; a farm calls no others.
const METHODS: [&str; 6] = [
    "/grpc.health.v1.Health/Check",
    "/moby.filesync.v1.FileSync/DiffCopy",
    "/moby.filesync.v1.FileSend/DiffCopy",
    "/moby.filesync.v1.Auth/Credentials",
    "/moby.filesync.v1.Auth/FetchToken",
    "/moby.buildkit.secrets.v1.Secrets/GetSecret",
];
const WINDOW: u32 = 2 << 20;

/// What the session offers to the farm.
#[derive(Debug)]
pub struct Services {
    /// Directories by name: `context`, `dockerfile`.
    pub files: FileSyncService,
    /// Where exports go.
    pub exports: FileSendService,
    /// Registry credentials.
    pub credentials: Credentials,
    /// Secrets by id.
    pub secrets: SecretStore,
}

/// An open session.
pub struct Session {
    id: String,
    tunnel: Tunnel,
    services: Services,
}

/// An id as BuildKit makes them: 25 characters, lowercase letters and digits.
pub fn new_id() -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    (0..25)
        .map(|_| char::from(DIGITS[usize::from(rand::random::<u8>() % 36)]))
        .collect()
}

impl Session {
    /// Opens the session's stream. `shared_key` lets the farm recognise the same directories of the same machine.
    ///
    /// # Errors
    /// The farm refuses, or does not know the method.
    pub async fn open(
        control: &mut ControlClient<Channel>,
        shared_key: &str,
        services: Services,
    ) -> Result<Self, tonic::Status> {
        let id = new_id();
        let (outgoing, messages) = mpsc::channel(16);
        let mut request = tonic::Request::new(ReceiverStream::new(messages));
        let metadata = request.metadata_mut();
        metadata.insert("x-docker-expose-session-uuid", ascii(&id)?);
        metadata.insert("x-docker-expose-session-name", ascii("buildyard")?);
        metadata.insert("x-docker-expose-session-sharedkey", ascii(shared_key)?);
        for method in METHODS {
            metadata.append("x-docker-expose-session-grpc-method", ascii(method)?);
        }
        let incoming = control.session(request).await?.into_inner();
        Ok(Self {
            id,
            tunnel: tunnel(incoming, outgoing),
            services,
        })
    }

    /// The id that a solve names.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Serves until the farm closes the connection. Dropping the future closes it from this side.
    ///
    /// # Errors
    /// The connection breaks.
    pub async fn run(self) -> Result<(), hyper::Error> {
        serve(self.tunnel, self.services).await
    }
}

/// Serves `services` over one connection.
async fn serve<IO>(io: IO, services: Services) -> Result<(), hyper::Error>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let routes = Routes::new(services.files)
        .add_service(services.exports)
        .add_service(AuthServer::new(services.credentials))
        .add_service(SecretsServer::new(services.secrets))
        .add_service(HealthService)
        .prepare();
    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW * 2)
        .serve_connection(TokioIo::new(io), TowerToHyperService::new(routes))
        .await
}

fn ascii(text: &str) -> Result<MetadataValue<Ascii>, tonic::Status> {
    text.parse()
        .map_err(|_| tonic::Status::internal("a session header is not plain text"))
}

/// The error type of services that cannot fail.
pub(super) type Never = Infallible;

#[cfg(test)]
mod tests;
