//! A byte stream inside a gRPC stream of `BytesMessage`: what the session's HTTP/2 connection runs on.
//!
//! Each message carries any number of bytes; message borders mean nothing.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bollard_buildkit_proto::moby::buildkit::v1::BytesMessage;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, Join, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::io::StreamReader;
use tokio_util::sync::PollSender;

/// No message carries more, so that one writer never holds much memory.
const MAX_WRITE: usize = 64 << 10;

/// A tunnel that reads from a gRPC stream and writes into a channel that feeds another.
pub type Tunnel = Join<Reader, Writer>;

/// The reading half.
pub struct Reader(Pin<Box<dyn AsyncRead + Send>>);

/// The writing half.
pub struct Writer(PollSender<BytesMessage>);

/// Joins both directions. The tunnel ends when `incoming` does; `outgoing` is closed on shutdown or drop.
pub fn tunnel<S>(incoming: S, outgoing: mpsc::Sender<BytesMessage>) -> Tunnel
where
    S: Stream<Item = Result<BytesMessage, tonic::Status>> + Send + 'static,
{
    let chunks = incoming.map(|message| match message {
        Ok(message) => Ok(Bytes::from(message.data)),
        Err(status) => Err(io::Error::other(status)),
    });
    tokio::io::join(
        Reader(Box::pin(StreamReader::new(chunks))),
        Writer(PollSender::new(outgoing)),
    )
}

impl AsyncRead for Reader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_read(cx, buf)
    }
}

impl AsyncWrite for Writer {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let closed = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        ready!(self.0.poll_reserve(cx)).map_err(closed)?;
        let part = &buf[..buf.len().min(MAX_WRITE)];
        self.0
            .send_item(BytesMessage {
                data: part.to_vec(),
            })
            .map_err(closed)?;
        Poll::Ready(Ok(part.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.close();
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;

    #[tokio::test]
    async fn bytes_pass_in_both_directions_whatever_the_message_borders() {
        let (to_b, from_a) = mpsc::channel(4);
        let (to_a, from_b) = mpsc::channel(4);
        let mut a = tunnel(ReceiverStream::new(from_b).map(Ok), to_b);
        let mut b = tunnel(ReceiverStream::new(from_a).map(Ok), to_a);
        let sent: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
        let writing = async {
            a.write_all(&sent).await.unwrap();
            a.shutdown().await.unwrap();
            let mut back = String::new();
            a.read_to_string(&mut back).await.unwrap();
            back
        };
        let reading = async {
            let mut received = Vec::new();
            b.read_to_end(&mut received).await.unwrap();
            b.write_all(b"thanks").await.unwrap();
            b.shutdown().await.unwrap();
            received
        };
        let (back, received) = tokio::join!(writing, reading);
        assert_eq!((back.as_str(), received), ("thanks", sent));
    }
}
