//! The worker's line to the coordinator: calls that are tried again while the coordinator is out of reach, and the queue
//! of events that outlives a broken connection.

use std::time::Duration;

use buildyard_proto::SESSION_METADATA;
use buildyard_proto::v1::farm_client::FarmClient;
use buildyard_proto::v1::{self as proto, from_worker, step_event};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

/// Largest message of the worker protocol: a layer's TOC travels in one.
pub(crate) const MAX_MESSAGE_BYTES: usize = 256 << 20;

/// How many events wait at most while the coordinator is out of reach or slow; beyond that, steps are held up.
const QUEUED_EVENTS: usize = 1024;

/// Adds the worker's session to every call.
#[derive(Clone)]
pub(crate) struct WithSession(MetadataValue<Ascii>);

impl tonic::service::Interceptor for WithSession {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request
            .metadata_mut()
            .insert(SESSION_METADATA, self.0.clone());
        Ok(request)
    }
}

/// A client whose calls carry the session.
pub(crate) type Client = FarmClient<InterceptedService<Channel, WithSession>>;

/// The line to the coordinator. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Link {
    client: Client,
    events: mpsc::Sender<proto::FromWorker>,
    cancel: CancellationToken,
}

/// Opens the line; the receiver yields what has to be sent over `Attach`.
pub(crate) fn open(
    channel: Channel,
    session: &str,
    cancel: CancellationToken,
) -> (Link, mpsc::Receiver<proto::FromWorker>) {
    let session = MetadataValue::try_from(session).expect("a session is hex digits");
    let client = FarmClient::with_interceptor(channel, WithSession(session))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let (events, queue) = mpsc::channel(QUEUED_EVENTS);
    (
        Link {
            client,
            events,
            cancel,
        },
        queue,
    )
}

impl Link {
    /// A client for one call that must not be tried again (streams).
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Returns when the worker stops.
    pub(crate) async fn stopped(&self) {
        self.cancel.cancelled().await;
    }

    /// Queues an event for the coordinator; waits while the queue is full. Lost only when the worker stops.
    pub(crate) async fn send(&self, event: from_worker::Event) {
        let message = proto::FromWorker { event: Some(event) };
        tokio::select! {
            _ = self.events.send(message) => {}
            () = self.cancel.cancelled() => {}
        }
    }

    /// Queues what happened to a step.
    pub(crate) async fn step_event(&self, job: &str, step: &str, event: step_event::Event) {
        let event = proto::StepEvent {
            job: job.to_owned(),
            step: step.to_owned(),
            time: unix_nanos(),
            event: Some(event),
        };
        self.send(from_worker::Event::Step(event)).await;
    }

    /// Makes a call, again and again while the coordinator cannot be reached, until it answers or the worker stops.
    ///
    /// # Errors
    /// The coordinator's refusal, or `Cancelled` when the worker stops.
    pub(crate) async fn call<T, F>(&self, mut attempt: impl FnMut(Client) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let mut pause = Duration::from_millis(50);
        loop {
            let outcome = tokio::select! {
                outcome = attempt(self.client.clone()) => outcome,
                () = self.cancel.cancelled() => return Err(Status::cancelled("the worker is stopping")),
            };
            match outcome {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) if out_of_reach(&status) => {
                    tracing::debug!(%status, "the coordinator is out of reach; trying again");
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = self.cancel.cancelled() => return Err(Status::cancelled("the worker is stopping")),
                    }
                    pause = (pause * 2).min(Duration::from_secs(2));
                }
                Err(status) => return Err(status),
            }
        }
    }
}

/// Whether a status comes from the transport rather than from the coordinator.
pub(crate) fn out_of_reach(status: &Status) -> bool {
    use std::error::Error;
    status.code() == Code::Unavailable
        || (status.code() == Code::Unknown && status.source().is_some())
}

/// Now as Unix time in nanoseconds.
pub(crate) fn unix_nanos() -> i64 {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)
}
