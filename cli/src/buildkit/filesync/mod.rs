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
pub use mode::{GO_DIR, GO_SYMLINK, from_go_mode, to_go_mode};
pub use walk::{Selection, SendError, walk};

pub(crate) use mode::FileKind;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use bollard_buildkit_proto::fsutil::types::Packet;
use bollard_buildkit_proto::moby::filesync::packet::file_sync_server::FileSync;
use futures::stream::BoxStream;
use tonic::{Request, Response, Status, Streaming};

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
impl FileSync for FileSyncService {
    type DiffCopyStream = BoxStream<'static, Result<Packet, Status>>;
    type TarStreamStream = BoxStream<'static, Result<Packet, Status>>;

    async fn diff_copy(
        &self,
        request: Request<Streaming<Packet>>,
    ) -> Result<Response<Self::DiffCopyStream>, Status> {
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
        Ok(Response::new(send::stream(root, selection, incoming)))
    }

    async fn tar_stream(
        &self,
        _: Request<Streaming<Packet>>,
    ) -> Result<Response<Self::TarStreamStream>, Status> {
        Err(Status::unimplemented("only DiffCopy is served"))
    }
}

#[cfg(test)]
mod tests;
