//! `Control.Solve`: one build, from the request to the exporters.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bollard_buildkit_proto::moby::buildkit::v1::{CacheOptions, CacheOptionsEntry, SolveRequest};
use buildyard_model::BuildId;
use tonic::Status;

use super::running::Running;
use super::supervise::until_cancelled;
use super::{Api, Shared, errors};
use crate::backend::{Build, BuildError, BuildRequest, CacheSpec, ExporterSpec, SolveInput, What};
use crate::progress::Progress;

/// A client opens its session beside the solve.
const SESSION_WITHIN: Duration = Duration::from_secs(10);
/// Longest build id.
const LONGEST_ID: usize = 128;
const MOST_EXPORTERS: usize = 32;

/// What an ended build answers.
type Outcome = Result<BTreeMap<String, String>, BuildError>;

impl Api {
    /// Runs the build. Dropping the future, as happens when the client hangs up, cancels it.
    pub(crate) async fn solve(
        &self,
        request: SolveRequest,
    ) -> Result<BTreeMap<String, String>, Status> {
        let shared = self.0.clone();
        let (running, what) = shared.start(request).await?;
        let _cancel_when_dropped = running.build.cancel.clone().drop_guard();
        let task = {
            let (shared, running) = (shared.clone(), running.clone());
            self.0
                .tasks
                .spawn(async move { shared.run_build(running, what).await })
        };
        match task.await {
            Ok(outcome) => outcome.map_err(|err| errors::to_status(&err)),
            Err(err) => {
                tracing::error!(build_id = %running.build.id, error = %err, "a build panicked");
                running.build.progress.finish(SystemTime::now());
                shared.builds.end(&running.build.id);
                Err(Status::internal("the builder failed; its log says why"))
            }
        }
    }
}

impl Shared {
    /// Checks the request and takes the build in.
    async fn start(
        &self,
        request: SolveRequest,
    ) -> Result<(Arc<Running>, Option<What>), BuildError> {
        check(&request)?;
        let session = self.sessions.get(&request.session, SESSION_WITHIN).await?;
        let what = what(&request);
        let inputs = request.frontend_inputs.clone();
        let build = Arc::new(Build {
            id: BuildId::new(request.r#ref.clone()),
            session,
            progress: Arc::new(Progress::default()),
            cancel: self.cancel.child_token(),
            request: build_request(request),
            created: SystemTime::now(),
        });
        let running = Arc::new(Running::new(build, inputs));
        self.builds.insert(running.clone())?;
        Ok((running, what))
    }

    async fn run_build(&self, running: Arc<Running>, what: Option<What>) -> Outcome {
        let build = &running.build;
        tracing::info!(build_id = %build.id, frontend = build.request.frontend, "build started");
        let work = until_cancelled(build.cancel.clone(), self.solve_and_export(&running, what));
        let outcome = cancel_when_gone(build, work).await;
        let outcome = outcome.map_err(|error| self.why(error));
        // Calls of its client that are still going on end with it.
        build.cancel.cancel();
        self.backend.finished(build, &outcome).await;
        build.progress.finish(SystemTime::now());
        self.builds.end(&build.id);
        match &outcome {
            Ok(_) => tracing::info!(build_id = %build.id, "build done"),
            Err(err) => tracing::info!(build_id = %build.id, error = err.message, "build failed"),
        }
        outcome
    }

    async fn solve_and_export(&self, running: &Running, what: Option<What>) -> Outcome {
        let build = &running.build;
        let solved = match what {
            Some(what) => {
                self.backend
                    .solve(
                        build,
                        SolveInput {
                            what,
                            evaluate: false,
                        },
                    )
                    .await?
            }
            None => {
                let returned = build.cancel.run_until_cancelled(running.returned()).await;
                returned.unwrap_or_else(|| Err(BuildError::cancelled()))?
            }
        };
        self.backend
            .export(build, solved, build.request.exporters.clone())
            .await
    }
}

/// Cancels the build when its client's session ends.
async fn cancel_when_gone(build: &Build, work: impl Future<Output = Outcome>) -> Outcome {
    let mut work = std::pin::pin!(work);
    tokio::select! {
        outcome = &mut work => outcome,
        () = build.session.closed().cancelled() => {
            build.cancel.cancel();
            work.await
        }
    }
}

fn check(request: &SolveRequest) -> Result<(), BuildError> {
    if request.r#ref.is_empty() || request.r#ref.len() > LONGEST_ID {
        return Err(BuildError::invalid(format!(
            "a build needs an id (Ref) of 1 to {LONGEST_ID} bytes"
        )));
    }
    if request.session.is_empty() {
        return Err(BuildError::invalid(
            "a build needs its client's session: open Control.Session and name it",
        ));
    }
    if request.exporters.len() > MOST_EXPORTERS {
        return Err(BuildError::invalid(format!(
            "a build may have {MOST_EXPORTERS} outputs at most"
        )));
    }
    if request.source_policy.is_some() || !request.source_policy_session.is_empty() {
        let message =
            "source policies are not supported by this builder; run the build without one";
        return Err(BuildError::new(tonic::Code::Unimplemented, message));
    }
    let graph = request
        .definition
        .as_ref()
        .is_some_and(|definition| !definition.def.is_empty());
    if graph && !request.frontend.is_empty() {
        return Err(BuildError::invalid(
            "cannot solve with both Definition and Frontend specified",
        ));
    }
    Ok(())
}

/// What to solve; `None`: the client drives the build through the gateway.
fn what(request: &SolveRequest) -> Option<What> {
    if !request.frontend.is_empty() {
        return Some(What::Frontend {
            name: request.frontend.clone(),
            attrs: request.frontend_attrs.clone().into_iter().collect(),
            inputs: request.frontend_inputs.clone().into_iter().collect(),
        });
    }
    request.definition.clone().map(What::Definition)
}

fn build_request(request: SolveRequest) -> BuildRequest {
    let exporters = exporters(&request);
    let (cache_imports, cache_exports) = caches(request.cache.unwrap_or_default());
    BuildRequest {
        frontend: request.frontend,
        attrs: request.frontend_attrs.into_iter().collect(),
        entitlements: request.entitlements,
        exporters,
        cache_imports,
        cache_exports,
        internal: request.internal,
    }
}

/// The outputs; of clients that know only one, that one.
fn exporters(request: &SolveRequest) -> Vec<ExporterSpec> {
    if request.exporters.is_empty() && !request.exporter_deprecated.is_empty() {
        let attrs = request
            .exporter_attrs_deprecated
            .clone()
            .into_iter()
            .collect();
        return vec![ExporterSpec {
            index: 0,
            kind: request.exporter_deprecated.clone(),
            attrs,
        }];
    }
    let all = request.exporters.iter().enumerate();
    all.map(|(index, exporter)| ExporterSpec {
        index,
        kind: exporter.r#type.clone(),
        attrs: exporter.attrs.clone().into_iter().collect(),
    })
    .collect()
}

fn caches(options: CacheOptions) -> (Vec<CacheSpec>, Vec<CacheSpec>) {
    let spec = |entry: CacheOptionsEntry| CacheSpec {
        kind: entry.r#type,
        attrs: entry.attrs.into_iter().collect(),
    };
    let registry = |reference: String, mut attrs: BTreeMap<String, String>| {
        attrs.insert("ref".to_owned(), reference);
        CacheSpec {
            kind: "registry".to_owned(),
            attrs,
        }
    };
    let mut imports: Vec<_> = options.imports.into_iter().map(spec).collect();
    imports.extend(
        options
            .import_refs_deprecated
            .into_iter()
            .map(|name| registry(name, BTreeMap::new())),
    );
    let mut exports: Vec<_> = options.exports.into_iter().map(spec).collect();
    if !options.export_ref_deprecated.is_empty() {
        let attrs = options.export_attrs_deprecated.into_iter().collect();
        exports.push(registry(options.export_ref_deprecated, attrs));
    }
    (imports, exports)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn attrs(key: &str) -> HashMap<String, String> {
        [(key.to_owned(), "v".to_owned())].into()
    }

    #[test]
    fn old_and_new_outputs_are_read() {
        let exporter = |kind: &str| bollard_buildkit_proto::moby::buildkit::v1::Exporter {
            r#type: kind.to_owned(),
            attrs: attrs("name"),
        };
        let old = SolveRequest {
            exporter_deprecated: "image".into(),
            exporter_attrs_deprecated: attrs("name"),
            ..Default::default()
        };
        let kinds = |request: &SolveRequest| {
            exporters(request)
                .into_iter()
                .map(|spec| (spec.index, spec.kind))
                .collect::<Vec<_>>()
        };
        assert_eq!(kinds(&old), [(0, "image".to_owned())]);
        let new = SolveRequest {
            exporters: vec![exporter("oci"), exporter("local")],
            ..old
        };
        assert_eq!(
            kinds(&new),
            [(0, "oci".to_owned()), (1, "local".to_owned())]
        );
        assert_eq!(kinds(&SolveRequest::default()), []);
    }

    #[test]
    fn old_and_new_caches_are_read() {
        let entry = CacheOptionsEntry {
            r#type: "gha".into(),
            attrs: attrs("scope"),
        };
        let options = CacheOptions {
            imports: vec![entry.clone()],
            import_refs_deprecated: vec!["a/b".into()],
            export_ref_deprecated: "c/d".into(),
            export_attrs_deprecated: attrs("mode"),
            ..Default::default()
        };
        let (imports, exports) = caches(options);
        assert_eq!(
            imports
                .iter()
                .map(|spec| spec.kind.as_str())
                .collect::<Vec<_>>(),
            ["gha", "registry"]
        );
        assert_eq!(imports[1].attrs["ref"], "a/b");
        assert_eq!(
            (
                exports[0].attrs["ref"].as_str(),
                exports[0].attrs["mode"].as_str()
            ),
            ("c/d", "v")
        );
    }

    #[test]
    fn requests_without_sense_are_refused() {
        let good = SolveRequest {
            r#ref: "b".into(),
            session: "s".into(),
            ..Default::default()
        };
        assert!(check(&good).is_ok());
        let definition = bollard_buildkit_proto::pb::Definition {
            def: vec![vec![1]],
            ..Default::default()
        };
        let frontend = String::from("dockerfile.v0");
        for bad in [
            SolveRequest {
                r#ref: String::new(),
                ..good.clone()
            },
            SolveRequest {
                r#ref: "x".repeat(LONGEST_ID + 1),
                ..good.clone()
            },
            SolveRequest {
                session: String::new(),
                ..good.clone()
            },
            SolveRequest {
                frontend,
                definition: Some(definition),
                ..good.clone()
            },
            SolveRequest {
                source_policy: Some(Default::default()),
                ..good.clone()
            },
        ] {
            assert!(check(&bad).is_err(), "{bad:?}");
        }
    }
}
