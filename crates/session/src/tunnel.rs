//! An HTTP/2 connection inside a stream of messages.
//!
//! `Control.Session` carries a byte stream in `BytesMessage`s, both ways. This makes a tonic [`Channel`] of it, on
//! which the coordinator is the client. Buffers are bounded: the outgoing queue holds [`QUEUE`] messages of at most
//! [`CHUNK`] bytes, the incoming one [`INCOMING_QUEUE`] messages of the client's.

use std::io::{self, IoSlice};
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
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    /// A frame's head and its content come as two slices: together they are one message.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the client's session has ended");
        ready!(self.outgoing.poll_reserve(cx)).map_err(gone)?;
        let count = bufs.iter().map(|buf| buf.len()).sum::<usize>().min(CHUNK);
        let mut data = Vec::with_capacity(count);
        for buf in bufs {
            let rest = count - data.len();
            data.extend_from_slice(&buf[..buf.len().min(rest)]);
        }
        self.outgoing
            .send_item(BytesMessage { data })
            .map_err(gone)?;
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outgoing.close();
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// A message costs the client more than the bytes in it: a frame is one, not its head and its content.
    #[tokio::test]
    async fn what_is_written_at_once_is_one_message() {
        let (sender, mut outgoing) = mpsc::channel(QUEUE);
        let (_arrived, incoming) = mpsc::channel(1);
        let mut tunnel = Tunnel {
            incoming,
            unread: Bytes::new(),
            outgoing: PollSender::new(sender),
            _closed: CancellationToken::new().drop_guard(),
        };
        assert!(tunnel.is_write_vectored());
        let content = vec![7; CHUNK];
        let parts = [b"head".as_slice(), b"", &content].map(IoSlice::new);
        let written = tunnel.write_vectored(&parts).await.expect("written");
        assert_eq!(written, CHUNK);
        let message = outgoing.recv().await.expect("a message").data;
        assert_eq!(message[..5], *b"head\x07");
        assert_eq!(message.len(), CHUNK);
        assert!(outgoing.try_recv().is_err());
    }
}
