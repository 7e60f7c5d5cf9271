//! BuildKit's gRPC API: `moby.buildkit.v1.Control` and `moby.buildkit.v1.frontend.LLBBridge`.
//!
//! Two ways lead to a build. A client may ask `Control.Solve` for a frontend or a graph; or, as `docker buildx` does,
//! it calls `Control.Solve` with neither, drives the build itself through `LLBBridge` calls that carry the build's id
//! in their metadata, and ends with `Return`. Either way the result goes to the exporters, and `Control.Status`
//! streams the progress beside it.
//!
//! This module translates. What a graph means, and what is cached, is the [`Backend`]'s.

mod bridge;
mod builds;
mod capabilities;
mod control;
mod errors;
mod gateway;
mod running;
mod solve;
mod supervise;
mod workers;

use std::sync::Arc;

use bollard_buildkit_proto::moby::buildkit::v1::control_server::ControlServer;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_server::LlbBridgeServer;
use buildyard_session::Sessions;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

use crate::backend::{Backend, Build};
use builds::Builds;

/// Largest message, both ways; BuildKit's own limit.
pub const LARGEST_MESSAGE: usize = 16 << 20;

/// The API's services over one backend. Clone it freely.
#[derive(Clone)]
pub struct Api(Arc<Shared>);

struct Shared {
    backend: Arc<dyn Backend>,
    sessions: Sessions,
    builds: Builds,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

impl Api {
    /// The services over `backend`. Cancelling `cancel` cancels every build.
    pub fn new(backend: Arc<dyn Backend>, cancel: CancellationToken) -> Self {
        Self(Arc::new(Shared {
            backend,
            sessions: Sessions::default(),
            builds: Builds::default(),
            tasks: TaskTracker::new(),
            cancel,
        }))
    }

    /// The gRPC routes, to be served alone or merged into an axum router (`Routes::into_axum_router`).
    pub fn routes(&self) -> Routes {
        let control = ControlServer::new(self.clone())
            .max_decoding_message_size(LARGEST_MESSAGE)
            .max_encoding_message_size(LARGEST_MESSAGE);
        let bridge = LlbBridgeServer::new(self.clone())
            .max_decoding_message_size(LARGEST_MESSAGE)
            .max_encoding_message_size(LARGEST_MESSAGE);
        Routes::new(control).add_service(bridge)
    }

    /// The open sessions.
    pub fn sessions(&self) -> &Sessions {
        &self.0.sessions
    }

    /// The builds that are going on.
    pub fn builds(&self) -> Vec<Arc<Build>> {
        self.0.builds.running()
    }

    /// Takes no further builds; those that are going on go on. `Control.Solve` answers Unavailable.
    pub fn close(&self) {
        self.0.builds.close();
    }

    /// Waits until nothing is going on. Ends only after [`Api::close`].
    pub async fn drained(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}
