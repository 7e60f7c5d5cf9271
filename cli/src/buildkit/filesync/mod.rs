//! Sending directories to the farm by fsutil's protocol: a STAT for each path in order, an empty STAT, then DATA for each
//! number that the farm asks for, an empty DATA behind each file, and FIN in both directions.
//!
//! Metadata of a call (BuildKit's `session/filesync/filesync.go`): `dir-name`, `include-patterns`, `exclude-patterns`,
//! `followpaths`, each with `…-encoded: 1` where the values are query-escaped. Owners are sent as root, as buildx does,
//! and extended attributes not at all. Nothing outside a directory's root is ever opened: no symlink is followed.

mod beneath;
mod follow;
mod header;
mod mode;
mod send;
mod walk;

pub use beneath::Root;
pub use buildyard_session::go_mode::{DIR as GO_DIR, SYMLINK as GO_SYMLINK};
pub use mode::{from_go_mode, to_go_mode};
pub use walk::{Selection, SendError, walk};

pub(super) use beneath::{lossy, split};
pub(super) use mode::FileKind;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Request, Status, Streaming};
use tower::Service;

use super::session::Never;
use super::wire::{self, Outgoing, Packet, Transfer};

/// The directories that the farm may ask for, by name.
#[derive(Debug, Clone, Default)]
pub struct FileSyncService {
    dirs: Arc<BTreeMap<String, PathBuf>>,
}

impl FileSyncService {
    /// Offers these directories.
    pub fn new(dirs: BTreeMap<String, PathBuf>) -> Self {
        Self {
            dirs: Arc::new(dirs),
        }
    }
}

#[tonic::async_trait]
impl Transfer for FileSyncService {
    async fn transfer(&self, request: Request<Streaming<Packet>>) -> Result<Outgoing, Status> {
        let (metadata, _, incoming) = request.into_parts();
        let call = header::Call::from_metadata(&metadata)?;
        let dir = self
            .dirs
            .get(&call.dir)
            .ok_or_else(|| Status::not_found(format!("no access allowed to dir {:?}", call.dir)))?;
        let root = Root::open(dir).map_err(|error| {
            Status::failed_precondition(format!(
                "cannot open the directory {}: {error}",
                dir.display()
            ))
        })?;
        let selection = Selection::new(&root, &call.include, &call.exclude, &call.follow)?;
        Ok(send::stream(root, selection, incoming))
    }
}

impl NamedService for FileSyncService {
    const NAME: &'static str = "moby.filesync.v1.FileSync";
}

impl Service<http::Request<Body>> for FileSyncService {
    type Response = http::Response<Body>;
    type Error = Never;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = Arc::new(self.clone());
        Box::pin(async move {
            if !request.uri().path().ends_with("/DiffCopy") {
                return Ok(Status::unimplemented("only DiffCopy is served").into_http());
            }
            Ok(wire::serve(service, request).await)
        })
    }
}

#[cfg(test)]
mod tests;
