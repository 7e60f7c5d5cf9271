//! `type=local` and `type=tar`: the files of the result, to the client. With several platforms each has a directory of its
//! own (`linux_amd64/`), unless `platform-split=false` asks to lay them over each other.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use buildyard_layer::write_tar;
use buildyard_registry::BlobStream;
use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::attributes::Attributes;
use super::tree::{Part, Tree};
use super::{ExportError, ExportRequest};

/// Bytes of archive in one piece.
const PIECE: usize = 256 << 10;

/// A result's files for the client.
#[derive(Debug, Clone)]
pub(super) struct FilesExport {
    tar: bool,
    split: Option<bool>,
    /// The time of every file, in Unix seconds.
    epoch: Option<i64>,
}

impl FilesExport {
    pub(super) fn parse(attributes: &mut Attributes) -> Result<Self, ExportError> {
        let tar = attributes.exporter() == "tar";
        if attributes.peek("mode").is_some_and(|mode| mode != "copy") {
            return Err(attributes.refuse("mode=delete is not supported yet".to_owned()));
        }
        let split = attributes.flag("platform-split")?;
        let epoch = attributes.epoch()?.map(|time| time.as_second());
        Ok(Self { tar, split, epoch })
    }

    /// Whether it is one archive and not a directory.
    pub(super) fn is_tar(&self) -> bool {
        self.tar
    }

    pub(super) async fn run(
        &self,
        request: &ExportRequest<'_>,
    ) -> Result<BTreeMap<String, String>, ExportError> {
        let split = self.split.unwrap_or(request.multi_platform);
        let mut parts = Vec::new();
        for image in request.images {
            let layers: Vec<_> = image.layers.iter().map(|layer| layer.layer).collect();
            let (toc, source) = request.layers.tree(&layers).await?;
            let directory = if split {
                image.platform.file_name()
            } else {
                String::new()
            };
            parts.push(Part {
                name: image.platform.to_string(),
                directory,
                toc,
                source,
            });
        }
        let tree = Arc::new(Tree::combine(parts, self.epoch)?);
        let doing = if self.tar {
            "sending tarball"
        } else {
            "copying files"
        };
        request.progress.begin(doing);
        let sent = match self.tar {
            true => {
                request
                    .client
                    .send_stream(&BTreeMap::new(), archive(tree))
                    .await
            }
            false => request.client.send_dir(tree).await,
        };
        if let Ok(bytes) = &sent {
            request.progress.moved(doing, *bytes, *bytes);
        }
        request.progress.end(doing);
        sent.map(|_| BTreeMap::new())
    }
}

/// The tree's tar form, written on a thread of its own while it is sent. It ends when nobody reads any more.
fn archive(tree: Arc<Tree>) -> BlobStream {
    let (sender, receiver) = mpsc::channel(4);
    tokio::task::spawn_blocking(move || {
        let mut out = io::BufWriter::with_capacity(PIECE, Pieces(sender.clone()));
        let written = write_tar(tree.toc(), &*tree, &mut out);
        let flushed = written.map_err(io::Error::other).and_then(|_| out.flush());
        if let Err(error) = flushed {
            // Nobody to tell: who has stopped reading doesn't want to know.
            let _ = sender.blocking_send(Err(error));
        }
    });
    ReceiverStream::new(receiver).boxed()
}

/// Hands what is written to a channel.
struct Pieces(mpsc::Sender<io::Result<Bytes>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Bytes::copy_from_slice(bytes);
        self.0
            .blocking_send(Ok(piece))
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
