//! An export that arrives as one stream of bytes: an archive for a file, standard output, or the Docker Engine.

use std::io::Write;
use std::path::{Path, PathBuf};

use bollard_buildkit_proto::moby::filesync::v1::BytesMessage;
use bollard_buildkit_proto::moby::filesync::v1::file_send_server::FileSend;
use bytes::Bytes;
use futures::stream::BoxStream;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

use super::{Destination, Failures};
use crate::docker;

/// Receives one export.
pub(super) struct FileExport {
    destination: Destination,
    failures: Failures,
}

impl FileExport {
    pub(super) fn new(destination: Destination, failures: Failures) -> Self {
        Self {
            destination,
            failures,
        }
    }
}

#[tonic::async_trait]
impl FileSend for FileExport {
    type DiffCopyStream = BoxStream<'static, Result<BytesMessage, Status>>;

    /// Answers when all is written: the farm waits for the answer before it calls the export done.
    async fn diff_copy(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::DiffCopyStream>, Status> {
        let incoming = request.into_inner();
        match &self.destination {
            Destination::File(path) => self.to_file(path, incoming).await?,
            Destination::Engine => self.to_engine(incoming).await?,
            Destination::Stdout | Destination::Directory(_) => self.to_stdout(incoming).await?,
        }
        Ok(Response::new(Box::pin(futures::stream::empty())))
    }
}

impl FileExport {
    async fn to_file(
        &self,
        path: &Path,
        mut incoming: Streaming<BytesMessage>,
    ) -> Result<(), Status> {
        let fail = |error: &dyn std::fmt::Display| {
            self.failures
                .status(format!("cannot write {}: {error}", path.display()))
        };
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        tokio::fs::create_dir_all(&parent)
            .await
            .map_err(|error| fail(&error))?;
        // A FIFO or a device cannot be replaced by renaming: those are written into.
        if tokio::fs::metadata(path)
            .await
            .is_ok_and(|found| !found.is_file())
        {
            let mut file = tokio::fs::File::options()
                .write(true)
                .open(path)
                .await
                .map_err(|error| fail(&error))?;
            while let Some(message) = incoming.message().await? {
                file.write_all(&message.data)
                    .await
                    .map_err(|error| fail(&error))?;
            }
            return file.flush().await.map_err(|error| fail(&error));
        }
        let temporary = tempfile::Builder::new()
            .prefix(".buildyard-")
            .tempfile_in(&parent)
            .map_err(|e| fail(&e))?;
        let (file, temporary) = temporary.into_parts();
        let mut file = tokio::fs::File::from_std(file);
        while let Some(message) = incoming.message().await? {
            file.write_all(&message.data)
                .await
                .map_err(|error| fail(&error))?;
        }
        // To hyper a cancelled call ends like a complete one. It drops this future when it finds the cancellation, and
        // it looks for that whenever the future waits: so it waits once before the file is put in place.
        tokio::task::yield_now().await;
        file.flush().await.map_err(|error| fail(&error))?;
        let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        file.set_permissions(readable)
            .await
            .map_err(|error| fail(&error))?;
        temporary.persist(path).map_err(|error| fail(&error.error))
    }

    async fn to_stdout(&self, mut incoming: Streaming<BytesMessage>) -> Result<(), Status> {
        while let Some(message) = incoming.message().await? {
            let write = move || {
                let mut stdout = std::io::stdout().lock();
                stdout
                    .write_all(&message.data)
                    .and_then(|()| stdout.flush())
            };
            let written = tokio::task::spawn_blocking(write).await;
            written
                .map_err(|_| Status::internal("the writing thread ended early"))?
                .map_err(|error| {
                    self.failures
                        .status(format!("cannot write to standard output: {error}"))
                })?;
        }
        Ok(())
    }

    async fn to_engine(&self, mut incoming: Streaming<BytesMessage>) -> Result<(), Status> {
        let (sender, chunks) = mpsc::channel::<Result<Bytes, std::io::Error>>(8);
        let receive = async move {
            while let Some(message) = incoming.message().await.inspect_err(|status| {
                // The engine must see that the archive is cut off.
                let _ = sender.try_send(Err(std::io::Error::other(status.message().to_owned())));
            })? {
                if sender.send(Ok(message.data.into())).await.is_err() {
                    // The engine has its own reason to stop reading; it is reported below.
                    break;
                }
            }
            Ok::<(), Status>(())
        };
        let (received, loaded) = tokio::join!(receive, docker::load_image(chunks));
        received?;
        loaded.map_err(|error| self.failures.status(error.to_string()))
    }
}
