//! fsutil's messages with paths as bytes: file names need not be UTF-8, and Go's side does not insist on it.
//!
//! The wire form is that of fsutil's `types/wire.proto` and `types/stat.proto`. Extended attributes are neither sent nor
//! read. The generated services insist on `string`, so the two methods that carry these messages are served from here.

use std::sync::Arc;

use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tonic::body::Body;
use tonic::server::{Grpc, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::MAX_MESSAGE;

/// What a path is.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Stat {
    /// The path, relative, without a leading slash.
    #[prost(bytes = "vec", tag = "1")]
    pub path: Vec<u8>,
    /// Go's `os.FileMode`.
    #[prost(uint32, tag = "2")]
    pub mode: u32,
    /// The owner.
    #[prost(uint32, tag = "3")]
    pub uid: u32,
    /// The owner's group.
    #[prost(uint32, tag = "4")]
    pub gid: u32,
    /// Bytes of content.
    #[prost(int64, tag = "5")]
    pub size: i64,
    /// Nanoseconds since 1970.
    #[prost(int64, tag = "6")]
    pub mod_time: i64,
    /// A symlink's target, or the path that a regular file is a hard link to.
    #[prost(bytes = "vec", tag = "7")]
    pub linkname: Vec<u8>,
    /// A device's major number.
    #[prost(int64, tag = "8")]
    pub devmajor: i64,
    /// A device's minor number.
    #[prost(int64, tag = "9")]
    pub devminor: i64,
}

/// One step of a transfer.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Packet {
    /// What it is.
    #[prost(enumeration = "PacketType", tag = "1")]
    pub r#type: i32,
    /// A path; none at the end of the paths.
    #[prost(message, optional, tag = "2")]
    pub stat: Option<Stat>,
    /// The number of a path, counted from 0 in the order of the STATs.
    #[prost(uint32, tag = "3")]
    pub id: u32,
    /// Content; empty at its end.
    #[prost(bytes = "vec", tag = "4")]
    pub data: Vec<u8>,
}

/// The packets that go out.
pub(super) type Outgoing = BoxStream<'static, Result<Packet, Status>>;

/// A method that takes packets and answers with packets.
#[tonic::async_trait]
pub(super) trait Transfer: Send + Sync + 'static {
    /// Starts one transfer.
    async fn transfer(&self, request: Request<Streaming<Packet>>) -> Result<Outgoing, Status>;
}

struct Method<T>(Arc<T>);

impl<T: Transfer> StreamingService<Packet> for Method<T> {
    type Response = Packet;
    type ResponseStream = Outgoing;
    type Future = BoxFuture<'static, Result<Response<Outgoing>, Status>>;

    fn call(&mut self, request: Request<Streaming<Packet>>) -> Self::Future {
        let transfer = self.0.clone();
        Box::pin(async move { transfer.transfer(request).await.map(Response::new) })
    }
}

/// Serves one call of such a method.
pub(super) async fn serve<T: Transfer>(
    transfer: Arc<T>,
    request: http::Request<Body>,
) -> http::Response<Body> {
    let codec = ProstCodec::<Packet, Packet>::default();
    Grpc::new(codec)
        .apply_max_message_size_config(Some(MAX_MESSAGE), None)
        .streaming(Method(transfer), request)
        .await
}

/// A packet without path and content.
pub(super) fn packet(kind: PacketType, id: u32) -> Packet {
    Packet {
        r#type: kind.into(),
        id,
        ..Packet::default()
    }
}
