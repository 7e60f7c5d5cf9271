//! Work of the coordinator itself, shown as steps of the build: loading the Dockerfile, looking images up, exporting.

use std::sync::Arc;
use std::time::SystemTime;

use buildyard_model::Digest;
use buildyard_session::SyncProgress;

use crate::backend::{Build, BuildError};
use crate::progress::{StatusUpdate, VertexInfo};

/// The digest under which work of this name shows in a build.
pub(super) fn internal_step(build: &Build, name: &str) -> Digest {
    Digest::of(format!("{}\0{name}", build.id))
}

/// Shows what comes from the client for a step, e.g. its `context`, as a counter.
pub(super) fn transferring(
    build: &Build,
    step: Digest,
    what: &str,
) -> Arc<dyn Fn(SyncProgress) + Send + Sync> {
    let (progress, id) = (build.progress.clone(), format!("transferring {what}:"));
    let began = SystemTime::now();
    Arc::new(move |sync: SyncProgress| {
        let now = SystemTime::now();
        let update = StatusUpdate {
            id: id.clone(),
            current: i64::try_from(sync.bytes).unwrap_or(i64::MAX),
            started: Some(began),
            completed: sync.done.then_some(now),
            ..StatusUpdate::default()
        };
        progress.status(step, update, now);
    })
}

/// Shows `work` as a step called `name`, while it runs and how it ends.
pub(super) async fn shown<T>(
    build: &Build,
    name: &str,
    work: impl Future<Output = Result<T, BuildError>> + Send,
) -> Result<T, BuildError> {
    let step = internal_step(build, name);
    build.progress.declare(
        step,
        VertexInfo {
            name: name.to_owned(),
            ..VertexInfo::default()
        },
    );
    build.progress.started(step, SystemTime::now());
    let outcome = work.await;
    match &outcome {
        Ok(_) => build.progress.completed(step, SystemTime::now()),
        Err(error) => build
            .progress
            .failed(step, &error.message, SystemTime::now()),
    }
    outcome
}
