//! The build behind a job: its steps' events become progress, and its client answers for secrets and credentials.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use buildyard_model::{Chain, LayerId, StepDigest, StepKey};
use buildyard_proto::v1::{self as proto, step_event::Event};
use buildyard_session::TokenRequest;
use buildyard_store::Pulled;
use tonic::Status;

use super::foretold::Foretold;
use super::state::{BuildState, RanOn};
use crate::backend::Build;
use crate::farm::JobHost;
use crate::progress::StatusUpdate;

/// A build as its jobs see it.
pub(super) struct BuildHost {
    pub(super) build: Arc<Build>,
    pub(super) state: Arc<BuildState>,
    pub(super) foretold: Arc<Foretold>,
}

#[async_trait]
impl JobHost for BuildHost {
    fn step_event(&self, step: StepDigest, worker: &str, event: &proto::StepEvent) {
        let at = time(event.time);
        match &event.event {
            Some(Event::Started(started)) => self.started(step, worker, &started.emulator, at),
            Some(Event::Ended(ended)) => self.ended(step, ended, at),
            Some(Event::Log(log)) => {
                self.build
                    .progress
                    .log(step.0, i64::from(log.stream), &log.data, at);
            }
            Some(Event::Status(status)) => {
                let update = StatusUpdate {
                    id: status.id.clone(),
                    name: String::new(),
                    current: status.current,
                    total: status.total,
                    started: Some(at),
                    completed: status.completed.then_some(at),
                };
                self.build.progress.status(step.0, update, at);
            }
            None => {}
        }
    }

    fn keyed(&self, step: StepDigest, key: StepKey) {
        self.foretold.note(step, key);
    }

    fn holds(&self, chains: &[Chain]) -> bool {
        self.state.holds(chains)
    }

    fn layer_of_image(&self, layer: LayerId) -> Option<Pulled> {
        self.state.layer_of_image(layer)
    }

    async fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, Status> {
        self.build.session.secret(id).await.map_err(unavailable)
    }

    async fn credentials(&self, host: &str) -> Result<Option<(String, String)>, Status> {
        let credentials = self
            .build
            .session
            .credentials(host)
            .await
            .map_err(unavailable)?;
        Ok(credentials.map(|c| (c.username, c.secret)))
    }

    async fn token(&self, request: proto::GetTokenRequest) -> Result<String, Status> {
        let request = TokenRequest {
            host: request.host,
            realm: request.realm,
            service: request.service,
            scopes: request.scopes,
        };
        let token = self
            .build
            .session
            .fetch_token(&request)
            .await
            .map_err(unavailable)?;
        Ok(token.map(|token| token.token).unwrap_or_default())
    }
}

impl BuildHost {
    /// Shows a step as running, and beside it where: a worker's name, and the emulator if there is one.
    fn started(&self, step: StepDigest, worker: &str, emulator: &str, at: SystemTime) {
        if self.state.note_started(step) {
            return;
        }
        self.build.progress.started(step.0, at);
        if worker.is_empty() {
            return;
        }
        self.state.note_ran_on(
            step,
            RanOn {
                worker: worker.to_owned(),
                emulator: emulator.to_owned(),
            },
        );
        let how = if emulator.is_empty() {
            "native".to_owned()
        } else {
            format!("emulated by {emulator}")
        };
        let update = StatusUpdate {
            id: format!("on {worker}, {how}"),
            started: Some(at),
            completed: Some(at),
            ..StatusUpdate::default()
        };
        self.build.progress.status(step.0, update, at);
    }

    fn ended(&self, step: StepDigest, ended: &proto::StepEnded, at: SystemTime) {
        let progress = &self.build.progress;
        if !ended.error.is_empty() {
            progress.failed(step.0, &ended.error, at);
        } else if ended.cached && !self.state.has_started(&step) {
            progress.cached(step.0, at);
        } else {
            progress.completed(step.0, at);
        }
    }
}

fn unavailable(error: buildyard_session::SessionError) -> Status {
    Status::failed_precondition(format!("the build's client could not be asked: {error}"))
}

fn time(unix_nanos: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(u64::try_from(unix_nanos).unwrap_or(0))
}
