//! An export that arrives as a tree of files.

use std::path::PathBuf;

use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Status, Streaming};

use super::super::wire::{Outgoing, Packet, Transfer};
use super::{Failures, TreeReceiver};

/// Receives one export.
pub(super) struct DirectoryExport {
    path: PathBuf,
    failures: Failures,
}

impl DirectoryExport {
    pub(super) fn new(path: PathBuf, failures: Failures) -> Self {
        Self { path, failures }
    }
}

#[tonic::async_trait]
impl Transfer for DirectoryExport {
    async fn transfer(&self, request: Request<Streaming<Packet>>) -> Result<Outgoing, Status> {
        let incoming = request.into_inner();
        let fail = |error: &dyn std::fmt::Display| {
            self.failures
                .status(format!("cannot write to {}: {error}", self.path.display()))
        };
        let receiver = TreeReceiver::new(&self.path).map_err(|error| fail(&error))?;
        let (outgoing, packets) = mpsc::channel(32);
        let (path, failures) = (self.path.clone(), self.failures.clone());
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            if let Err(status) = receive(receiver, incoming, &outgoing, &path, &failures).await {
                let _ = outgoing.send(Err(status)).await;
            }
        }));
        let stream = ReceiverStream::new(packets).map(move |item| {
            let _owner = &task;
            item
        });
        Ok(stream.boxed())
    }
}

/// Takes packets until the sender has answered our FIN; the files are written on a thread of their own.
async fn receive(
    mut receiver: TreeReceiver,
    mut incoming: Streaming<Packet>,
    outgoing: &mpsc::Sender<Result<Packet, Status>>,
    path: &std::path::Path,
    failures: &Failures,
) -> Result<(), Status> {
    let (to_disk, mut packets) = mpsc::channel::<Packet>(32);
    let answers = outgoing.clone();
    let writing = tokio::task::spawn_blocking(move || {
        while let Some(packet) = packets.blocking_recv() {
            for answer in receiver.packet(packet)? {
                if answers.blocking_send(Ok(answer)).is_err() {
                    return Ok(());
                }
            }
        }
        Ok::<(), super::ReceiveError>(())
    });
    let reading = async move {
        while let Some(packet) = incoming.message().await? {
            if packet.r#type() == PacketType::PacketErr {
                let text = String::from_utf8_lossy(&packet.data).into_owned();
                return Err(Status::aborted(format!(
                    "the farm could not send the files: {text}"
                )));
            }
            if packet.r#type() == PacketType::PacketFin || to_disk.send(packet).await.is_err() {
                break;
            }
        }
        Ok(())
    };
    let (read, written) = tokio::join!(reading, writing);
    let written = written.map_err(|_| Status::internal("the writing thread ended early"))?;
    written
        .map_err(|error| failures.status(format!("cannot write to {}: {error}", path.display())))?;
    read
}
