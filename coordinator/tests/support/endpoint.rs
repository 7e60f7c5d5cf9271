//! The API on a socket.

use std::path::Path;
use std::sync::Arc;

use buildyard_coordinator::api::Api;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use super::engine::Scripted;

/// A served API; stops when dropped.
pub(crate) struct Endpoint {
    pub(crate) api: Api,
    pub(crate) engine: Arc<Scripted>,
    pub(crate) address: String,
    pub(crate) cancel_builds: CancellationToken,
    _stop: DropGuard,
}

impl Endpoint {
    pub(crate) async fn tcp() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        let address = format!("tcp://{}", listener.local_addr().expect("it is bound"));
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        Self::serve(address, |server, stop| {
            tokio::spawn(server.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()))
        })
    }

    pub(crate) async fn unix(dir: &Path) -> Self {
        let path = dir.join("farm.sock");
        let listener = tokio::net::UnixListener::bind(&path).expect("a new socket");
        Self::serve(format!("unix://{}", path.display()), |server, stop| {
            tokio::spawn(server.serve_with_incoming_shutdown(
                UnixListenerStream::new(listener),
                stop.cancelled_owned(),
            ))
        })
    }

    fn serve<T>(
        address: String,
        spawn: impl FnOnce(tonic::transport::server::Router, CancellationToken) -> T,
    ) -> Self {
        let engine = Arc::new(Scripted::default());
        let cancel_builds = CancellationToken::new();
        let api = Api::new(engine.clone(), cancel_builds.clone());
        let stop = CancellationToken::new();
        spawn(Server::builder().add_routes(api.routes()), stop.clone());
        Self {
            api,
            engine,
            address,
            cancel_builds,
            _stop: stop.drop_guard(),
        }
    }
}
