//! A file for the client.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tonic_prost::ProstCodec;

use super::{DIFF_COPY, headers};
use crate::wire::Chunk;
use crate::{Session, SessionError};

/// Largest message; longer chunks are cut.
const CHUNK: usize = 1024 * 1024;

impl Session {
    /// Sends `body` to the client's output number `exporter`, and waits until the client has it. `attrs` go along as
    /// headers. Returns the bytes sent. When `body` fails the call is broken off, so that the client does not take
    /// what it has for the whole.
    pub async fn send_stream<S>(
        &self,
        exporter: usize,
        attrs: &BTreeMap<String, String>,
        body: S,
    ) -> Result<u64, SessionError>
    where
        S: Stream<Item = io::Result<Bytes>> + Send,
    {
        self.require(DIFF_COPY, "the result is to be sent to it")?;
        let (sender, receiver) = mpsc::channel::<Chunk>(8);
        let mut call = tonic::Request::new(tokio_stream::wrappers::ReceiverStream::new(receiver));
        *call.metadata_mut() = headers(exporter, attrs);
        // Kept until the client has answered: dropped early, the stream would end as if it were complete.
        let broken_off = sender.clone();
        let sending = async move { pump(body, sender).await };
        let receiving = async {
            let mut grpc = tonic::client::Grpc::new(self.channel());
            grpc.ready()
                .await
                .map_err(|err| tonic::Status::unavailable(err.to_string()))?;
            let codec: ProstCodec<Chunk, Chunk> = ProstCodec::default();
            let path = DIFF_COPY.parse().expect("a constant path");
            let mut answers = grpc.streaming(call, path, codec).await?.into_inner();
            while answers.message().await?.is_some() {}
            Ok(())
        };
        let receiving = self.call("sending the result to the client", receiving);
        join(sending, receiving, broken_off).await
    }
}

async fn pump<S>(body: S, sender: mpsc::Sender<Chunk>) -> io::Result<Option<u64>>
where
    S: Stream<Item = io::Result<Bytes>>,
{
    let mut body = std::pin::pin!(body);
    let mut sent = 0;
    while let Some(chunk) = body.next().await {
        let mut rest = chunk?;
        while !rest.is_empty() {
            let data = rest.split_to(rest.len().min(CHUNK));
            sent += data.len() as u64;
            if sender.send(Chunk { data }).await.is_err() {
                return Ok(None);
            }
        }
    }
    Ok(Some(sent))
}

/// Waits for both sides. The client's answer decides, unless the body failed first.
async fn join(
    sending: impl Future<Output = io::Result<Option<u64>>>,
    receiving: impl Future<Output = Result<(), SessionError>>,
    keep: mpsc::Sender<Chunk>,
) -> Result<u64, SessionError> {
    // Declared first, dropped last: on an error the call must be gone before its stream of messages can end.
    let mut keep = Some(keep);
    let (mut sending, mut receiving) = (std::pin::pin!(sending), std::pin::pin!(receiving));
    let mut sent = None;
    loop {
        tokio::select! {
            outcome = &mut sending, if sent.is_none() => {
                sent = Some(outcome.map_err(SessionError::Source)?.unwrap_or_default());
                keep = None;
            }
            outcome = &mut receiving => {
                outcome?;
                drop(keep);
                return sent.ok_or_else(|| {
                    let status = tonic::Status::aborted("it stopped reading before it had everything");
                    SessionError::refused("sending the result to the client", status)
                });
            }
        }
    }
}
