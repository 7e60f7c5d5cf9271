//! Exporting: what was solved goes out in every way that the client asked for.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use buildyard_model::Digest;
use tonic::Code;

use super::Engine;
use super::internal_step::{internal_step, shown};
use super::sources::registry_error;
use super::state::BuildState;
use crate::backend::{Build, BuildError, ExporterSpec, Solved};
use crate::export::{
    Export, ExportError, ExportProgress, ExportRequest, PlatformImage, SessionSink,
};
use crate::layers::ExportLayers;
use crate::progress::{StatusUpdate, Warning};

impl Engine {
    /// Evaluates and exports. Outputs are checked before anything is built.
    pub(super) async fn export_all(
        &self,
        build: &Arc<Build>,
        state: &Arc<BuildState>,
        solved: &Solved,
        exporters: Vec<ExporterSpec>,
    ) -> Result<BTreeMap<String, String>, BuildError> {
        let mut exports = Vec::new();
        for spec in &exporters {
            let export = Export::parse(&spec.kind, &spec.attrs).map_err(export_error)?;
            exports.push((spec.index, export));
        }
        if exports.is_empty() {
            self.evaluate_solved(build, state, solved).await?;
            return Ok(BTreeMap::new());
        }
        let (images, multi_platform) = self.images(build, state, solved).await?;
        let mut response = BTreeMap::new();
        for (index, export) in exports {
            response.extend(
                self.export_one(build, state, &images, multi_platform, index, &export)
                    .await?,
            );
        }
        Ok(response)
    }

    async fn export_one(
        &self,
        build: &Arc<Build>,
        state: &Arc<BuildState>,
        images: &[PlatformImage],
        multi_platform: bool,
        index: usize,
        export: &Export,
    ) -> Result<BTreeMap<String, String>, BuildError> {
        let name = export.name();
        let progress = StepProgress {
            build: build.clone(),
            step: internal_step(build, &name),
            counters: Mutex::default(),
        };
        let sink = SessionSink::new(build.session.clone(), index);
        let work = async {
            warn_of_unknown(build, progress.step, export);
            let request = ExportRequest {
                images,
                multi_platform,
                layers: Arc::new(ExportLayers::new(self.layers.clone(), state.origins())),
                registry: &state.registry,
                client: &sink,
                progress: &progress,
            };
            tokio::select! {
                outcome = export.run(&request) => outcome.map_err(export_error),
                () = build.cancel.cancelled() => Err(BuildError::cancelled()),
            }
        };
        shown(build, &name, work).await
    }
}

/// Attributes of an output that nobody knows have no effect; the client's user hears of them.
fn warn_of_unknown(build: &Build, step: Digest, export: &Export) {
    for name in export.unknown() {
        build.progress.warn(Warning {
            vertex: Some(step),
            level: 1,
            short: format!("output attribute {name:?} is not known here and has no effect"),
            ..Warning::default()
        });
    }
}

fn export_error(error: ExportError) -> BuildError {
    match error {
        ExportError::Registry(error) => {
            let error = registry_error(error);
            error.context("failed to push")
        }
        ExportError::Attribute { .. } | ExportError::Refused(_) => {
            BuildError::invalid(error.to_string())
        }
        ExportError::Layer { .. } => match super::no_space(&error.to_string()) {
            Some(said) => BuildError::new(Code::ResourceExhausted, said),
            None => BuildError::new(Code::Internal, error.to_string()),
        },
        ExportError::Client(_) => BuildError::failed(error.to_string()),
    }
}

/// The parts of an export as counters of its step.
struct StepProgress {
    build: Arc<Build>,
    step: Digest,
    /// How far each part is.
    counters: Mutex<HashMap<String, (u64, u64)>>,
}

impl StepProgress {
    fn show(&self, part: &str, counters: (u64, u64), completed: bool) {
        let now = SystemTime::now();
        let update = StatusUpdate {
            id: part.to_owned(),
            name: String::new(),
            current: i64::try_from(counters.0).unwrap_or(i64::MAX),
            total: i64::try_from(counters.1).unwrap_or(i64::MAX),
            started: Some(now),
            completed: completed.then_some(now),
        };
        self.build.progress.status(self.step, update, now);
    }

    fn counters(&self) -> MutexGuard<'_, HashMap<String, (u64, u64)>> {
        self.counters
            .lock()
            .expect("nobody panics while holding it")
    }
}

impl ExportProgress for StepProgress {
    fn begin(&self, part: &str) {
        self.show(part, (0, 0), false);
    }

    fn moved(&self, part: &str, current: u64, total: u64) {
        self.counters().insert(part.to_owned(), (current, total));
        self.show(part, (current, total), false);
    }

    fn end(&self, part: &str) {
        let counters = self.counters().remove(part).unwrap_or_default();
        self.show(part, counters, true);
    }
}
