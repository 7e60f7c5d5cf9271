//! An HTTP/2 connection inside a stream of messages.
//!
//! `Control.Session` carries a byte stream in `BytesMessage`s, both ways. This makes a tonic [`Channel`] of it, on
//! which the coordinator is the client. Buffers are bounded: the outgoing queue holds [`QUEUE`] messages of at most
//! [`CHUNK`] bytes, the incoming one [`INCOMING_QUEUE`] messages of the client's.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bollard_buildkit_proto::moby::buildkit::v1::BytesMessage;
use bytes::{Buf, Bytes};
use futures::{Stream, StreamExt};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard, PollSender};
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::{Channel, Endpoint, Uri};

/// Messages that wait to be sent to the client.
const QUEUE: usize = 16;
/// Messages that wait to be read by the inner connection; each may have 2 MiB.
const INCOMING_QUEUE: usize = 4;
/// Most bytes of one message. BuildKit's own end writes up to 2 MiB and reads any size that gRPC lets through.
const CHUNK: usize = 256 * 1024;
/// Flow control windows of the inner connection: a context is one fat stream, so the stream's window is large.
const STREAM_WINDOW: u32 = 8 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 32 * 1024 * 1024;

/// What the client receives.
pub(crate) type Outgoing = mpsc::Receiver<BytesMessage>;

/// A channel over `incoming` and the returned outgoing messages, and the task that reads what the client sends.
///
/// `closed` is cancelled when either direction ends. The task reads from the start, not only once a call has opened
/// the inner connection: a client that closes an unused session waits until the coordinator has seen it.
pub(crate) fn channel<S>(
    incoming: S,
    closed: CancellationToken,
) -> (Channel, Outgoing, AbortOnDropHandle<()>)
where
    S: Stream<Item = Result<BytesMessage, tonic::Status>> + Send + 'static,
{
    let (sender, outgoing) = mpsc::channel(QUEUE);
    let (arrived, incoming_queue) = mpsc::channel(INCOMING_QUEUE);
    let reading = tokio::spawn(read(incoming, arrived, closed.clone()));
    let tunnel = Tunnel {
        incoming: incoming_queue,
        unread: Bytes::new(),
        outgoing: PollSender::new(sender),
        _closed: closed.drop_guard(),
    };
    (over(tunnel), outgoing, AbortOnDropHandle::new(reading))
}

async fn read<S>(incoming: S, arrived: mpsc::Sender<Bytes>, closed: CancellationToken)
where
    S: Stream<Item = Result<BytesMessage, tonic::Status>>,
{
    let mut incoming = std::pin::pin!(incoming);
    while let Some(Ok(message)) = incoming.next().await {
        if arrived.send(message.data.into()).await.is_err() {
            break;
        }
    }
    closed.cancel();
}

/// A channel over any connection that is already there. It is used once: when the connection is gone, calls fail.
pub(crate) fn over<I>(connection: I) -> Channel
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut connection = Some(connection);
    let connect = tower::service_fn(move |_: Uri| {
        let connection = connection.take();
        async move {
            connection
                .map(TokioIo::new)
                .ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "the session has ended"))
        }
    });
    Endpoint::from_static("http://session")
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .connect_with_connector_lazy(connect)
}

struct Tunnel {
    incoming: mpsc::Receiver<Bytes>,
    unread: Bytes,
    outgoing: PollSender<BytesMessage>,
    // The connection owns the tunnel: when it drops it, or the stream below ends, the session is over.
    _closed: DropGuard,
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(self.incoming.poll_recv(cx)) {
                Some(bytes) => self.unread = bytes,
                None => return Poll::Ready(Ok(())),
            }
        }
        let count = self.unread.len().min(buf.remaining());
        buf.put_slice(&self.unread[..count]);
        self.unread.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the client's session has ended");
        ready!(self.outgoing.poll_reserve(cx)).map_err(gone)?;
        let count = buf.len().min(CHUNK);
        self.outgoing
            .send_item(BytesMessage {
                data: buf[..count].to_vec(),
            })
            .map_err(gone)?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outgoing.close();
        Poll::Ready(Ok(()))
    }
}
