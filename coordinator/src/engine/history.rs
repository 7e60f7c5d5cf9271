//! What stays of a build: its record, its steps, their logs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use buildyard_model::{Platform, StepDigest, WorkerId};
use buildyard_store::{
    BuildOutcome, BuildRecord, Finished, StepLog, StepRecord, StoreError, UnixMillis, cap_log,
};

use super::Engine;
use super::state::{BuildState, RanOn};
use crate::backend::{Build, BuildError};
use crate::progress::VertexRecord;

impl Engine {
    /// Writes a build that has ended into the history.
    pub(super) async fn record_build(
        &self,
        build: &Arc<Build>,
        state: Option<&BuildState>,
        outcome: &Result<BTreeMap<String, String>, BuildError>,
    ) -> Result<(), StoreError> {
        if build.request.internal {
            return Ok(());
        }
        self.record_start(build, state).await?;
        let steps: Vec<StepRecord> = build
            .progress
            .vertices()
            .into_iter()
            .map(|vertex| step_record(build, state, vertex))
            .collect();
        let finished = Finished {
            outcome: match outcome {
                Ok(_) => BuildOutcome::Succeeded,
                Err(error) if error.is_cancelled() => BuildOutcome::Cancelled,
                Err(_) => BuildOutcome::Failed,
            },
            completed: super::now(),
            error: outcome.as_ref().err().map(|error| error.message.clone()),
            response: outcome.as_ref().cloned().unwrap_or_default(),
            steps,
        };
        self.store.finish_build(&build.id, &finished).await?;
        Ok(())
    }

    /// Writes that a build has begun, once: after a crash it is known to have been interrupted.
    pub(super) async fn record_start(
        &self,
        build: &Build,
        state: Option<&BuildState>,
    ) -> Result<(), StoreError> {
        if build.request.internal || state.is_some_and(BuildState::is_recorded) {
            return Ok(());
        }
        match self.store.start_build(&self.build_record(build)).await {
            // Another call of the same build was faster.
            Err(StoreError::BuildExists(_)) => {}
            outcome => outcome?,
        }
        if let Some(state) = state {
            state.note_recorded();
        }
        Ok(())
    }

    /// The record with which a build begins.
    fn build_record(&self, build: &Build) -> BuildRecord {
        let attrs = &build.request.attrs;
        let text = |key: &str| attrs.get(key).cloned().unwrap_or_default();
        let platforms: Vec<Platform> = text("platform")
            .split(',')
            .filter_map(|platform| platform.trim().parse().ok())
            .collect();
        let export = |spec: &crate::backend::ExporterSpec| match spec.attrs.get("name") {
            Some(name) => format!("{} {name}", spec.kind),
            None => spec.kind.clone(),
        };
        BuildRecord {
            id: build.id.clone(),
            scope: self.scope.clone(),
            name: attrs
                .get("filename")
                .cloned()
                .unwrap_or_else(|| "Dockerfile".to_owned()),
            frontend: build.request.frontend.clone(),
            target: text("target"),
            platforms: if platforms.is_empty() {
                vec![self.build_platform.clone()]
            } else {
                platforms
            },
            exports: build.request.exporters.iter().map(export).collect(),
            started: UnixMillis::from(build.created),
            outcome: BuildOutcome::Running,
            completed: None,
            error: None,
            response: BTreeMap::new(),
            steps: 0,
            steps_cached: 0,
            steps_emulated: 0,
        }
    }
}

fn step_record(build: &Build, state: Option<&BuildState>, vertex: VertexRecord) -> StepRecord {
    let step = StepDigest(vertex.step);
    let RanOn { worker, emulator } = state
        .and_then(|state| state.ran_on(&step))
        .unwrap_or_default();
    let mut log = Vec::new();
    for line in build.progress.log_of(vertex.step) {
        log.extend_from_slice(&line.data);
    }
    let time = |time: Option<SystemTime>| time.map(UnixMillis::from);
    // The build is over: what still ran was given up with it.
    let given_up = vertex.started.is_some() && vertex.completed.is_none();
    let error = match vertex.error.is_empty() {
        true if given_up => Some(BuildError::cancelled().message),
        true => None,
        false => Some(vertex.error),
    };
    StepRecord {
        step,
        platform: platform_in(&vertex.info.name),
        name: vertex.info.name,
        worker: (!worker.is_empty()).then(|| WorkerId::new(worker)),
        cached: vertex.cached,
        emulated: !emulator.is_empty(),
        started: time(vertex.started),
        completed: time(vertex.completed).or_else(|| given_up.then(super::now)),
        error,
        log: (!log.is_empty()).then(|| StepLog::Text(cap_log(&log))),
    }
}

/// The platform in a step's name: `[linux/arm64 2/3] RUN …`; not the step's number, as in `[2/3] RUN …`.
fn platform_in(name: &str) -> Option<Platform> {
    let inside = name.strip_prefix('[')?.split([' ', ']', '-']).next()?;
    let number = inside
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'/');
    (inside.contains('/') && !number)
        .then(|| inside.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_platform_is_read_from_the_name() {
        let check = |name: &str, expected: Option<&str>| {
            let platform = platform_in(name).map(|platform| platform.to_string());
            assert_eq!(platform.as_deref(), expected, "{name}");
        };
        check("[linux/arm64 2/3] RUN true", Some("linux/arm64"));
        check("[linux/arm/v7 stage-1 2/3] RUN true", Some("linux/arm/v7"));
        check("[linux/amd64->arm64 2/3] RUN true", Some("linux/amd64"));
        check("[2/3] RUN true", None);
        check("[build 2/3] RUN true", None);
        check("[internal] load build context", None);
        check("exporting to image", None);
    }
}
