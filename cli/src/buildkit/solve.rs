//! One build: session, solve and status side by side, until the last status has come.
//!
//! Cancelling drops the solve, which ends the build on the farm; the status is followed to its end.

use std::collections::HashMap;
use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1::control_client::ControlClient;
use bollard_buildkit_proto::moby::buildkit::v1::{
    CacheOptions, Exporter, InfoRequest, SolveRequest, StatusRequest, StatusResponse,
};
use futures::future::OptionFuture;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::session::{Services, Session, new_id};
use super::{ErrorDetails, MAX_MESSAGE};

/// How long the status may be silent once the solve is over.
const STATUS_GRACE: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(100);

/// What to build.
#[derive(Debug, Default)]
pub struct Job {
    /// Attributes for the frontend `dockerfile.v0`.
    pub attrs: HashMap<String, String>,
    /// What to export.
    pub exporters: Vec<Exporter>,
    /// What the build may do beyond the usual.
    pub entitlements: Vec<String>,
    /// Cache import and export.
    pub cache: CacheOptions,
    /// Lets the farm recognise the same directories again.
    pub shared_key: String,
}

/// Who is told what happens; called from one task, must not block for long.
pub trait Observer: Send {
    /// Steps, logs, progress or warnings have come.
    fn status(&mut self, status: &StatusResponse);
    /// Time has passed.
    fn tick(&mut self);
}

/// A build that succeeded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Solved {
    /// The build's id.
    pub id: String,
    /// What the exporters answered, by BuildKit's keys.
    pub response: HashMap<String, String>,
}

/// Why a build did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// What answers is no farm, or it went away before the build.
    #[error("the farm does not take the build: {}", .0.message())]
    Refused(tonic::Status),
    /// The build failed.
    #[error("failed to solve: {}", .status.message())]
    Failed {
        /// What the farm said.
        status: tonic::Status,
        /// Where it comes from.
        details: ErrorDetails,
    },
    /// The connection broke.
    #[error("lost the connection to the farm: {0}")]
    Lost(String),
    /// The user interrupted.
    #[error("interrupted")]
    Interrupted,
}

/// Runs a build. `interrupt` ends it early.
///
/// # Errors
/// What [`BuildError`] lists.
pub async fn solve(
    channel: Channel,
    job: Job,
    services: Services,
    observer: &mut dyn Observer,
    interrupt: &CancellationToken,
) -> Result<Solved, BuildError> {
    let mut control = ControlClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
    control
        .info(InfoRequest {})
        .await
        .map_err(BuildError::Refused)?;
    let session = Session::open(&mut control, &job.shared_key, services)
        .await
        .map_err(BuildError::Refused)?;
    let id = new_id();
    let request = solve_request(job, &id, session.id());
    let mut solving = control.clone();
    let call = async move { solving.solve(request).await };
    let follow = Follow {
        control,
        id: id.clone(),
    };
    let response = follow.run(call, session, observer, interrupt).await?;
    Ok(Solved { id, response })
}

fn solve_request(job: Job, id: &str, session: &str) -> SolveRequest {
    let first = job.exporters.first().cloned().unwrap_or_default();
    SolveRequest {
        r#ref: id.to_owned(),
        session: session.to_owned(),
        frontend: "dockerfile.v0".into(),
        frontend_attrs: job.attrs,
        // Servers older than the list read these.
        exporter_deprecated: first.r#type,
        exporter_attrs_deprecated: first.attrs,
        exporters: job.exporters,
        entitlements: job.entitlements,
        cache: Some(job.cache),
        ..SolveRequest::default()
    }
}

struct Follow {
    control: ControlClient<Channel>,
    id: String,
}

type SolveOutcome = Result<
    tonic::Response<bollard_buildkit_proto::moby::buildkit::v1::SolveResponse>,
    tonic::Status,
>;

impl Follow {
    async fn run(
        mut self,
        call: impl Future<Output = SolveOutcome>,
        session: Session,
        observer: &mut dyn Observer,
        interrupt: &CancellationToken,
    ) -> Result<HashMap<String, String>, BuildError> {
        let session = session.run();
        tokio::pin!(session);
        let mut call: OptionFuture<_> = Some(Box::pin(call)).into();
        let status = self.control.status(StatusRequest {
            r#ref: self.id.clone(),
        });
        tokio::pin!(status);
        let mut stream = None;
        let mut outcome: Option<Result<HashMap<String, String>, BuildError>> = None;
        let (mut status_over, mut session_over) = (false, false);
        let mut deadline = Instant::now();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            if status_over && let Some(outcome) = outcome.take() {
                return outcome;
            }
            tokio::select! {
                _ = ticks.tick() => observer.tick(),
                () = interrupt.cancelled(), if outcome.is_none() => {
                    call = None.into();
                    outcome = Some(Err(BuildError::Interrupted));
                    deadline = Instant::now() + STATUS_GRACE;
                }
                Some(answer) = &mut call, if outcome.is_none() => {
                    outcome = Some(answered(answer));
                    deadline = Instant::now() + STATUS_GRACE;
                }
                opened = &mut status, if stream.is_none() && !status_over => match opened {
                    Ok(opened) => stream = Some(opened.into_inner()),
                    // The solve's own answer says what is wrong.
                    Err(_) => status_over = true,
                },
                Some(message) = OptionFuture::from(stream.as_mut().map(tonic::Streaming::message)), if !status_over => {
                    deadline = deadline.max(Instant::now() + STATUS_GRACE);
                    match message {
                        Ok(Some(message)) => observer.status(&message),
                        Ok(None) | Err(_) => status_over = true,
                    }
                }
                ended = &mut session, if !session_over => {
                    session_over = true;
                    if let (Err(error), None) = (ended, &outcome) {
                        outcome = Some(Err(BuildError::Lost(error.to_string())));
                        call = None.into();
                        deadline = Instant::now() + STATUS_GRACE;
                    }
                }
                () = sleep_until(deadline), if outcome.is_some() => status_over = true,
            }
        }
    }
}

fn answered(answer: SolveOutcome) -> Result<HashMap<String, String>, BuildError> {
    match answer {
        Ok(response) => Ok(response.into_inner().exporter_response),
        Err(status) => {
            let details = ErrorDetails::of(&status);
            Err(BuildError::Failed { status, details })
        }
    }
}
