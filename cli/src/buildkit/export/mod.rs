//! Receiving exports: the session's `FileSend`, which the farm calls once for each export that comes back.
//!
//! One method carries two protocols, told apart by what the export is: a file arrives as plain chunks, a directory by
//! fsutil's protocol with this side as the receiver. The metadata `buildkit-attachable-exporter-id` says which export it is
//! (BuildKit's `session/filesync/filesync.go`).

mod directory;
mod file;
mod tree;

pub use tree::{ReceiveError, TreeReceiver};

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bollard_buildkit_proto::moby::filesync::v1::file_send_server::FileSendServer;
use futures::future::BoxFuture;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use super::MAX_MESSAGE;
use super::session::Never;
use super::wire;

const EXPORTER_ID: &str = "buildkit-attachable-exporter-id";

/// Where one export goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A file, put in place when it is complete.
    File(PathBuf),
    /// Standard output.
    Stdout,
    /// A directory, made if it does not exist.
    Directory(PathBuf),
    /// The Docker Engine.
    Engine,
}

/// The session's `FileSend`.
#[derive(Debug, Clone, Default)]
pub struct FileSendService {
    destinations: Arc<BTreeMap<usize, Destination>>,
    failure: Arc<Mutex<Option<String>>>,
}

impl FileSendService {
    /// Destinations by the exporter's index in the solve request.
    pub fn new(destinations: BTreeMap<usize, Destination>) -> Self {
        Self {
            destinations: Arc::new(destinations),
            failure: Arc::default(),
        }
    }

    /// Why an export could not be written on this side, if one could not: a better reason than the farm can give.
    pub fn failure(&self) -> Option<String> {
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn destination(&self, headers: &http::HeaderMap) -> Result<Destination, tonic::Status> {
        let id = match headers.get(EXPORTER_ID) {
            Some(value) => value
                .to_str()
                .ok()
                .and_then(|text| text.parse::<usize>().ok()),
            // Servers older than the header have one export.
            None => self.destinations.keys().next().copied(),
        };
        id.and_then(|id| self.destinations.get(&id).cloned())
            .ok_or_else(|| tonic::Status::not_found("this build has no such export"))
    }
}

/// Keeps the first failure of this side.
#[derive(Debug, Clone)]
struct Failures(Arc<Mutex<Option<String>>>);

impl Failures {
    fn status(&self, message: String) -> tonic::Status {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert_with(|| message.clone());
        tonic::Status::failed_precondition(message)
    }
}

impl NamedService for FileSendService {
    const NAME: &'static str = "moby.filesync.v1.FileSend";
}

impl Service<http::Request<Body>> for FileSendService {
    type Response = http::Response<Body>;
    type Error = Never;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let failures = Failures(self.failure.clone());
        let destination = self.destination(request.headers());
        Box::pin(async move {
            match destination {
                Err(status) => Ok(status.into_http()),
                Ok(Destination::Directory(path)) => {
                    let service = Arc::new(directory::DirectoryExport::new(path, failures));
                    Ok(wire::serve(service, request).await)
                }
                Ok(destination) => {
                    let service = file::FileExport::new(destination, failures);
                    FileSendServer::new(service)
                        .max_decoding_message_size(MAX_MESSAGE)
                        .call(request)
                        .await
                }
            }
        })
    }
}
