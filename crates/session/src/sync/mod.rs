//! Taking a directory from the client (`FileSync.DiffCopy`), as a TOC over one pack of bytes.
//!
//! The client walks the directory and sends the metadata of every path in order, each path having a number. The
//! coordinator asks by number for the contents that it lacks: those whose size, time or metadata differ from the
//! tree of the last transfer. Contents come interleaved, in pieces, and are written where [`Pack`] puts them while
//! their digests are computed. Memory grows with the number of paths, never with the size of files.
//!
//! Owners: BuildKit's clients send local files with uid and gid zero; what they send is taken as it is. Sockets are
//! left out. Extended attributes are kept, except those of overlay file systems and `security.selinux`, which belong
//! to the machine and not to the file.

mod check;
mod pack;
mod receive;
mod tree;
mod writer;

use std::sync::Arc;

use buildyard_layer::Toc;
use buildyard_model::FlatId;
pub use pack::{Pack, PackError};
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic_prost::ProstCodec;

use crate::wire::Packet;
use crate::{Session, SessionError, metadata};

const DIFF_COPY: &str = "/moby.filesync.v1.FileSync/DiffCopy";
/// Largest packet. Go's clients send pieces of 32 KiB, and one path with its attributes in one packet.
const LARGEST_PACKET: usize = 16 * 1024 * 1024;

/// Which files to take.
#[derive(Clone, Default)]
pub struct SyncRequest {
    /// The client's name for the directory: `context`, `dockerfile`, a named context's.
    pub dir_name: String,
    /// Take only paths that match one of these; empty: all.
    pub include_patterns: Vec<String>,
    /// Leave out what matches these (`.dockerignore`'s rules, `!` for exceptions).
    pub exclude_patterns: Vec<String>,
    /// Take only these paths, and what symlinks in them lead to.
    pub follow_paths: Vec<String>,
    /// The tree of the last transfer of the same directory: unchanged files are taken from it.
    pub previous: Option<Arc<Toc>>,
    /// Bounds of the transfer.
    pub limits: SyncLimits,
    /// Told about the bytes that have arrived, now and then.
    pub progress: Option<Arc<dyn Fn(SyncProgress) + Send + Sync>>,
}

/// How far a transfer is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SyncProgress {
    /// Bytes of messages received so far, metadata included.
    pub bytes: u64,
    /// Paths received so far.
    pub entries: u64,
    /// The transfer is over.
    pub done: bool,
}

/// What a client may send at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyncLimits {
    /// Paths.
    pub entries: usize,
    /// Bytes of contents that travel.
    pub bytes: u64,
    /// Bytes of one path, or of one link's target.
    pub path_bytes: usize,
    /// Bytes of one path's extended attributes.
    pub xattr_bytes: usize,
}

impl Default for SyncLimits {
    fn default() -> Self {
        Self {
            entries: 2_000_000,
            bytes: 256 << 30,
            path_bytes: 4095,
            xattr_bytes: 128 << 10,
        }
    }
}

/// A directory taken from the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synced {
    /// Every path, contents by extents of the new pack and of the previous tree's flat files.
    pub toc: Toc,
    /// The new pack; `None` where nothing travelled.
    pub flat: Option<FlatId>,
    /// Bytes of contents that travelled.
    pub bytes: u64,
    /// Files whose contents travelled.
    pub files: u64,
}

impl Session {
    /// Takes a directory from the client. The bytes of changed files go into `pack`, which is finished if there are
    /// any and dropped otherwise.
    pub async fn sync_dir(
        &self,
        request: SyncRequest,
        pack: Box<dyn Pack>,
    ) -> Result<Synced, SessionError> {
        self.require(
            DIFF_COPY,
            format!("the files of {:?} are needed", request.dir_name),
        )?;
        let doing = format!("reading {:?} from the client", request.dir_name);
        let (sender, receiver) = tokio::sync::mpsc::channel::<Packet>(64);
        let mut call = tonic::Request::new(tokio_stream::wrappers::ReceiverStream::new(receiver));
        *call.metadata_mut() = headers(&request);
        let mut grpc =
            tonic::client::Grpc::new(self.channel()).max_decoding_message_size(LARGEST_PACKET);
        let codec: ProstCodec<Packet, Packet> = ProstCodec::default();
        let start = async {
            grpc.ready()
                .await
                .map_err(|err| tonic::Status::unavailable(err.to_string()))?;
            grpc.streaming(call, DIFF_COPY.parse().expect("a constant path"), codec)
                .await
        };
        let incoming = self.call(&doing, start).await?.into_inner();
        let transfer = receive::run(request, incoming, sender, pack);
        self.while_open(transfer).await
    }
}

fn headers(request: &SyncRequest) -> MetadataMap {
    let mut headers = MetadataMap::new();
    metadata::append(&mut headers, "include-patterns", &request.include_patterns);
    metadata::append(&mut headers, "exclude-patterns", &request.exclude_patterns);
    metadata::append(&mut headers, "followpaths", &request.follow_paths);
    metadata::append(
        &mut headers,
        "dir-name",
        std::slice::from_ref(&request.dir_name),
    );
    if request.dir_name.is_empty() {
        headers.insert("dir-name", AsciiMetadataValue::from_static(""));
    }
    headers
}

#[cfg(test)]
mod counts;
#[cfg(test)]
mod tests;
