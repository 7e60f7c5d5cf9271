//! Sources: what a graph takes in from outside. Images become chains of layers without being pulled; the client's
//! directories are taken over and become a layer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use buildyard_layer::Toc;
use buildyard_llb::{Step, pb};
use buildyard_model::{Chain, LayerId, Platform};
use buildyard_registry::{Reference, RegistryError, Resolved};
use buildyard_session::SyncRequest;
use tonic::Code;

use super::Engine;
use super::internal_step::transferring;
use super::state::{BuildState, layers_of};
use crate::backend::{Build, BuildError};
use crate::progress::StatusUpdate;

impl Engine {
    /// What a source step yields. Shows it as a step.
    pub(super) async fn source(
        &self,
        build: &Arc<Build>,
        state: &BuildState,
        step: &Step,
    ) -> Result<Chain, BuildError> {
        let Some(pb::op::Op::Source(source)) = &step.op.op else {
            return Err(BuildError::new(
                Code::Internal,
                "a step that is no source was taken for one",
            ));
        };
        build.progress.started(step.digest.0, SystemTime::now());
        let outcome = if let Some(reference) = source.identifier.strip_prefix("docker-image://") {
            self.image_source(build, state, step, reference).await
        } else if let Some(name) = source.identifier.strip_prefix("local://") {
            self.local_source(build, state, step, name, &source.attrs)
                .await
        } else {
            Err(BuildError::invalid(format!(
                "source {:?} is not supported",
                source.identifier
            )))
        };
        match &outcome {
            Ok(_) => build.progress.completed(step.digest.0, SystemTime::now()),
            Err(error) => build
                .progress
                .failed(step.digest.0, &error.message, SystemTime::now()),
        }
        outcome.map_err(|error| error.at_step(step.digest))
    }

    async fn image_source(
        &self,
        build: &Arc<Build>,
        state: &BuildState,
        step: &Step,
        reference: &str,
    ) -> Result<Chain, BuildError> {
        let platform = step
            .platform
            .clone()
            .unwrap_or_else(|| self.build_platform.clone());
        let at = SystemTime::now();
        let status = |completed| StatusUpdate {
            id: format!("resolve {reference}"),
            started: Some(at),
            completed,
            ..StatusUpdate::default()
        };
        build.progress.status(step.digest.0, status(None), at);
        let image = self.resolve(state, reference, &platform).await?;
        build.progress.status(
            step.digest.0,
            status(Some(SystemTime::now())),
            SystemTime::now(),
        );
        Ok(Chain::new(
            image
                .layers
                .iter()
                .map(|layer| LayerId(layer.diff_id))
                .collect(),
        ))
    }

    /// Looks an image up and records its layers, once per build.
    pub(super) async fn resolve(
        &self,
        state: &BuildState,
        reference: &str,
        platform: &Platform,
    ) -> Result<Arc<Resolved>, BuildError> {
        if let Some(image) = state.image(reference, platform) {
            return Ok(image);
        }
        let parsed: Reference = reference.parse().map_err(|error| {
            BuildError::invalid(format!("{reference:?} is not an image reference: {error}"))
        })?;
        let image = Arc::new(
            state
                .registry
                .resolve(&parsed, platform)
                .await
                .map_err(registry_error)?,
        );
        state
            .hold
            .layers(image.layers.iter().map(|layer| LayerId(layer.diff_id)));
        self.layers
            .put_image(layers_of(&image), super::now())
            .await
            .map_err(super::internal)?;
        state.set_image(reference, platform, image.clone());
        state.set_image(&image.reference.to_string(), platform, image.clone());
        Ok(image)
    }

    async fn local_source(
        &self,
        build: &Arc<Build>,
        state: &BuildState,
        step: &Step,
        name: &str,
        attrs: &BTreeMap<String, String>,
    ) -> Result<Chain, BuildError> {
        let list = |key: &str| -> Result<Vec<String>, BuildError> {
            match attrs.get(key) {
                None => Ok(Vec::new()),
                Some(text) => serde_json::from_str(text).map_err(|_| {
                    BuildError::invalid(format!(
                        "{key} of local source {name:?} is not a JSON list"
                    ))
                }),
            }
        };
        let hint = attrs
            .get("local.sharedkeyhint")
            .map_or(name, String::as_str);
        let key = format!("{}\0{hint}\0{name}", build.session.shared_key());
        let digest = step.digest.0;
        let previous = self.previous(state, &key).await?;
        let request = SyncRequest {
            dir_name: name.to_owned(),
            include_patterns: list("local.includepattern")?,
            exclude_patterns: list("local.excludepatterns")?,
            follow_paths: list("local.followpaths")?,
            previous: previous.as_ref().map(|(_, toc)| toc.clone()),
            limits: Default::default(),
            progress: Some(transferring(build, digest, "context")),
        };
        let synced = build.session.sync_dir(request, self.pack()?).await?;
        if let Some((layer, _)) = previous.filter(|(_, toc)| **toc == synced.toc)
            && state.hold.layers([layer])
            && self
                .layers
                .keeps_own(layer)
                .await
                .map_err(super::internal)?
        {
            return Ok(Chain::new(vec![layer]));
        }
        let toc = Arc::new(synced.toc);
        state.hold.flats(toc.flats.iter().copied());
        let put = self.layers.put_own(toc, super::now()).await;
        let layer = put.map_err(super::internal)?;
        state.hold.layers([layer]);
        self.contexts.put(key, layer);
        Ok(Chain::new(vec![layer]))
    }

    /// What the last transfer took, if its bytes are still here; they stay as long as the build runs.
    async fn previous(
        &self,
        state: &BuildState,
        key: &str,
    ) -> Result<Option<(LayerId, Arc<Toc>)>, BuildError> {
        let Some(layer) = self.contexts.get(key) else {
            return Ok(None);
        };
        let toc = self.layers.toc(layer).await.map_err(super::internal)?;
        let Some(toc) = toc else {
            return Ok(None);
        };
        let held = state.hold.flats(toc.flats.iter().copied());
        let missing = self.layers.missing(&toc).map_err(super::internal)?;
        Ok((held && missing.is_empty()).then_some((layer, toc)))
    }
}

/// A registry's error for the client: what the user can mend is said plainly, the code tells the kinds apart.
pub(super) fn registry_error(error: RegistryError) -> BuildError {
    let code = match &error {
        RegistryError::NotFound { .. } | RegistryError::NoSuchPlatform { .. } => Code::NotFound,
        RegistryError::Unauthorized { .. } | RegistryError::Credentials { .. } => {
            Code::PermissionDenied
        }
        RegistryError::Unreachable { .. }
        | RegistryError::TimedOut { .. }
        | RegistryError::Interrupted { .. } => Code::Unavailable,
        _ => Code::Unknown,
    };
    BuildError::new(code, error.to_string())
}
