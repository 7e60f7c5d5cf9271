//! From what was solved to the images that exporters take.

use std::sync::Arc;

use buildyard_image::ImageConfig;
use buildyard_model::{Chain, Platform};
use serde::Deserialize;

use super::state::BuildState;
use super::{Engine, internal};
use crate::backend::{Build, BuildError, Ref, Refs, Solved};
use crate::export::{ImageLayer, PlatformImage};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Platforms {
    platforms: Vec<NamedPlatform>,
}

#[derive(Deserialize)]
struct NamedPlatform {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Platform")]
    platform: PlatformParts,
}

#[derive(Deserialize)]
struct PlatformParts {
    architecture: String,
    os: String,
    #[serde(default)]
    variant: String,
}

/// One platform's part of a solved build.
struct Part<'a> {
    id: String,
    platform: Platform,
    reference: Option<&'a Ref>,
}

impl Engine {
    /// Evaluates everything that was solved, all platforms together.
    pub(super) async fn evaluate_solved(
        &self,
        build: &Arc<Build>,
        state: &Arc<BuildState>,
        solved: &Solved,
    ) -> Result<Vec<Chain>, BuildError> {
        let references: Vec<&Ref> = match &solved.refs {
            Refs::Empty => Vec::new(),
            Refs::Single(reference) => vec![reference],
            Refs::PerPlatform(refs) => refs.values().collect(),
        };
        let definitions: Vec<_> = references
            .iter()
            .map(|reference| reference.definition())
            .collect();
        self.evaluate_all(build, state, &definitions).await
    }

    /// Evaluates, and joins each platform's layers with its configuration. The second value says whether the client asked
    /// for the form with several platforms.
    pub(super) async fn images(
        &self,
        build: &Arc<Build>,
        state: &Arc<BuildState>,
        solved: &Solved,
    ) -> Result<(Vec<PlatformImage>, bool), BuildError> {
        let multi_platform = matches!(solved.refs, Refs::PerPlatform(_));
        let parts = self.parts(solved)?;
        let definitions: Vec<_> = parts
            .iter()
            .filter_map(|part| part.reference.map(|reference| reference.definition()))
            .collect();
        let mut chains = self
            .evaluate_all(build, state, &definitions)
            .await?
            .into_iter();
        let mut images = Vec::new();
        for part in parts {
            let chain = if part.reference.is_some() {
                chains.next().unwrap_or_default()
            } else {
                Chain::scratch()
            };
            images.push(PlatformImage {
                config: config(solved, &part, multi_platform)?,
                platform: part.platform,
                layers: self.image_layers(&chain).await?,
            });
        }
        Ok((images, multi_platform))
    }

    fn parts<'a>(&self, solved: &'a Solved) -> Result<Vec<Part<'a>>, BuildError> {
        let named = match solved.metadata.get("refs.platforms") {
            Some(bytes) => {
                serde_json::from_slice::<Platforms>(bytes)
                    .map_err(|error| {
                        BuildError::invalid(format!("refs.platforms is malformed: {error}"))
                    })?
                    .platforms
            }
            None => Vec::new(),
        };
        let mut named = named.into_iter().map(|named| {
            let parts = named.platform;
            (
                named.id,
                Platform::new(&parts.os, &parts.architecture, &parts.variant),
            )
        });
        match &solved.refs {
            Refs::PerPlatform(refs) => {
                let named: Vec<_> = named.collect();
                if named.is_empty() {
                    return Err(BuildError::invalid(
                        "several results were returned without refs.platforms",
                    ));
                }
                let part = |(id, platform): (String, Platform)| Part {
                    reference: refs.get(&id),
                    id,
                    platform,
                };
                Ok(named.into_iter().map(part).collect())
            }
            single => {
                let (id, platform) = named
                    .next_back()
                    .unwrap_or_else(|| (String::new(), self.build_platform.clone()));
                let reference = match single {
                    Refs::Single(reference) => Some(reference),
                    _ => None,
                };
                Ok(vec![Part {
                    id,
                    platform,
                    reference,
                }])
            }
        }
    }

    async fn image_layers(&self, chain: &Chain) -> Result<Vec<ImageLayer>, BuildError> {
        let records = self.store.layers(chain.layers()).await.map_err(internal)?;
        let layer = |(id, record): (_, Option<buildyard_store::LayerRecord>)| {
            let made = record.filter(|record| record.pulled.is_none());
            ImageLayer {
                layer: id,
                created: made.map(|record| record.created.to_string()),
                description: "buildyard".to_owned(),
            }
        };
        Ok(chain
            .layers()
            .iter()
            .copied()
            .zip(records)
            .map(layer)
            .collect())
    }
}

/// A platform's configuration, as the frontend gave it; a plain one for raw LLB.
fn config(
    solved: &Solved,
    part: &Part<'_>,
    multi_platform: bool,
) -> Result<ImageConfig, BuildError> {
    let key = if multi_platform {
        format!("containerimage.config/{}", part.id)
    } else {
        "containerimage.config".to_owned()
    };
    match solved.metadata.get(&key) {
        Some(bytes) => buildyard_image::parse_config(bytes).map_err(|error| {
            BuildError::invalid(format!(
                "the image configuration of {} is malformed: {error}",
                part.platform
            ))
        }),
        None => Ok(ImageConfig {
            architecture: part.platform.architecture.clone(),
            os: part.platform.os.clone(),
            variant: part.platform.variant.clone(),
            ..ImageConfig::default()
        }),
    }
}
