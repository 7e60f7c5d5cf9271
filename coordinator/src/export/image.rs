//! `type=image`: into registries. Of what the repository lacks, blobs first, of all platforms at one time; then the manifests;
//! the index last, so that whoever pulls the name always gets a whole image.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use buildyard_image::{Descriptor, MediaTypes};
use buildyard_registry::{BlobSource, BlobStream, Reference, Registry, RegistryError};
use futures::FutureExt;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::attributes::Attributes;
use super::compose::{Composed, Composition, Document, ImageOptions};
use super::{ExportError, ExportProgress, ExportRequest, LayerBlob, LayerBlobs};

/// How many blobs are on their way to one repository; each registry's own limit lies below.
const MAX_BLOBS_AT_ONCE: usize = 16;

/// An image for registries.
#[derive(Debug, Clone)]
pub(super) struct ImageExport {
    options: ImageOptions,
    push: bool,
    by_digest: bool,
    insecure: bool,
}

impl ImageExport {
    pub(super) fn parse(attributes: &mut Attributes) -> Result<Self, ExportError> {
        let tagged = attributes_tag(attributes);
        let options = ImageOptions::parse(attributes, MediaTypes::Oci)?;
        let push = attributes.flag("push")?.unwrap_or(false);
        let by_digest = attributes.flag("push-by-digest")?.unwrap_or(false);
        let insecure = attributes.flag("registry.insecure")?.unwrap_or(false);
        let push = push || by_digest;
        if push && options.names.is_empty() {
            return Err(attributes.refuse("tag is needed when pushing to registry".to_owned()));
        }
        if let Some(name) = tagged.filter(|_| by_digest) {
            return Err(attributes.refuse(format!("can't push tagged ref {name} by digest")));
        }
        Ok(Self {
            options,
            push,
            by_digest,
            insecure,
        })
    }

    pub(super) async fn run(
        &self,
        request: &ExportRequest<'_>,
    ) -> Result<BTreeMap<String, String>, ExportError> {
        let composition = self.options.compose(request).await?;
        if self.push {
            self.push_all(request, &composition).await?;
        }
        let names: Vec<String> = self
            .options
            .names
            .iter()
            .map(|name| self.shown_name(name))
            .collect();
        Ok(response(&composition, &names))
    }

    fn shown_name(&self, name: &Reference) -> String {
        if self.by_digest {
            name.name()
        } else {
            name.to_string()
        }
    }

    /// One task for each repository; within it, one for each name.
    async fn push_all(
        &self,
        request: &ExportRequest<'_>,
        composition: &Composition,
    ) -> Result<(), ExportError> {
        let names = &self.options.names;
        let hosts = names.iter().map(|name| name.host().to_owned());
        let registry = if self.insecure {
            request.registry.allowing_insecure(hosts)
        } else {
            request.registry.clone()
        };
        let repositories: BTreeSet<String> = names.iter().map(Reference::name).collect();
        let pushes = repositories.iter().map(|repository| {
            let names: Vec<&Reference> = names
                .iter()
                .filter(|name| name.name() == *repository)
                .collect();
            let push = Push {
                registry: &registry,
                composition,
                layers: &request.layers,
                progress: request.progress,
            };
            async move { push.repository(&names, self.by_digest).await }
        });
        futures::future::try_join_all(pushes).await.map(drop)
    }
}

/// The first name with a tag of its own: by digest there is none.
fn attributes_tag(attributes: &mut Attributes) -> Option<String> {
    let names = attributes.peek("name")?;
    let last = |name: &str| {
        name.rsplit('/')
            .next()
            .is_some_and(|last| last.contains(':'))
    };
    names.split(',').find(|name| last(name)).map(str::to_owned)
}

/// What the client is told about an image.
pub(super) fn response(composition: &Composition, names: &[String]) -> BTreeMap<String, String> {
    let root = &composition.root().descriptor;
    let mut response = BTreeMap::new();
    response.insert("containerimage.digest".to_owned(), root.digest.to_string());
    let descriptor = serde_json::to_vec(root)
        .expect("a descriptor has string keys only and no failing serializer");
    let descriptor = base64::engine::general_purpose::STANDARD.encode(descriptor);
    response.insert("containerimage.descriptor".to_owned(), descriptor);
    if let (None, [one]) = (&composition.index, composition.platforms.as_slice()) {
        response.insert(
            "containerimage.config.digest".to_owned(),
            one.config.descriptor.digest.to_string(),
        );
    }
    if !names.is_empty() {
        response.insert("image.name".to_owned(), names.join(","));
    }
    response
}

/// A push into one registry.
struct Push<'a> {
    registry: &'a Registry,
    composition: &'a Composition,
    layers: &'a Arc<dyn LayerBlobs>,
    progress: &'a dyn ExportProgress,
}

/// A blob to push: its bytes if it is a document, else where to get them.
struct Blob<'a> {
    descriptor: &'a Descriptor,
    origin: Option<&'a Reference>,
    source: Box<dyn BlobSource + 'a>,
}

impl Push<'_> {
    async fn repository(&self, names: &[&Reference], by_digest: bool) -> Result<(), ExportError> {
        let Some(repository) = names.first() else {
            return Ok(());
        };
        self.progress.begin("pushing layers");
        let pushed = self.platforms(repository).await;
        self.progress.end("pushing layers");
        pushed?;
        let root = self.composition.root();
        for name in names {
            let shown = if by_digest {
                name.name()
            } else {
                name.to_string()
            };
            let part = format!("pushing manifest for {shown}@{}", root.descriptor.digest);
            self.progress.begin(&part);
            let target = if by_digest {
                name.at(root.descriptor.digest)
            } else {
                (*name).clone()
            };
            let pushed = self.put(target, root).await;
            self.progress.end(&part);
            pushed?;
        }
        Ok(())
    }

    /// The platforms that the repository lacks, all at one time: their blobs, and then, where an index comes, their manifests.
    /// A repository that has a manifest has its blobs.
    async fn platforms(&self, repository: &Reference) -> Result<(), ExportError> {
        let platforms = &self.composition.platforms;
        let asked = platforms.iter().map(|platform| {
            let digest = platform.manifest.descriptor.digest;
            self.registry.has_manifest(repository, digest)
        });
        let there = futures::future::try_join_all(asked).await?;
        let absent: Vec<&Composed> = platforms
            .iter()
            .zip(there)
            .filter_map(|(platform, there)| (!there).then_some(platform))
            .collect();
        self.blobs(repository, &absent).await?;
        if self.composition.index.is_some() {
            let pushes = absent.iter().map(|platform| {
                let manifest = &platform.manifest;
                self.put(repository.at(manifest.descriptor.digest), manifest)
            });
            futures::future::try_join_all(pushes).await?;
        }
        Ok(())
    }

    /// Every blob once, layers and configurations of all platforms at one time.
    async fn blobs(
        &self,
        repository: &Reference,
        platforms: &[&Composed],
    ) -> Result<(), ExportError> {
        let mut blobs = BTreeMap::new();
        for platform in platforms {
            let source = |blob: &LayerBlob| LayerSource {
                layers: self.layers.clone(),
                blob: blob.clone(),
            };
            for layer in &platform.layers {
                blobs
                    .entry(layer.descriptor.digest)
                    .or_insert_with(|| Blob {
                        descriptor: &layer.descriptor,
                        origin: layer.origin.as_ref(),
                        source: Box::new(source(layer)),
                    });
            }
            let config = &platform.config;
            blobs
                .entry(config.descriptor.digest)
                .or_insert_with(|| Blob {
                    descriptor: &config.descriptor,
                    origin: None,
                    source: Box::new(config.bytes.clone()),
                });
        }
        // Boxed here, not in the stream: a closure in the stream's type keeps the future from being `Send`.
        let pushes: Vec<_> = blobs
            .into_values()
            .map(|blob| self.push_blob(repository, blob).boxed())
            .collect();
        Ok(stream::iter(pushes)
            .buffer_unordered(MAX_BLOBS_AT_ONCE)
            .try_collect::<()>()
            .await?)
    }

    async fn push_blob(&self, repository: &Reference, blob: Blob<'_>) -> Result<(), RegistryError> {
        let (descriptor, origin) = (blob.descriptor, blob.origin);
        let source = blob.source.as_ref();
        self.registry
            .push_blob(repository, descriptor, origin, source)
            .await
            .map(drop)
    }

    async fn put(&self, target: Reference, document: &Document) -> Result<(), ExportError> {
        let media_type = &document.descriptor.media_type;
        self.registry
            .put_manifest(&target, media_type, document.bytes.clone())
            .await?;
        Ok(())
    }
}

/// A layer's bytes, wherever they are.
struct LayerSource {
    layers: Arc<dyn LayerBlobs>,
    blob: LayerBlob,
}

#[async_trait]
impl BlobSource for LayerSource {
    async fn open(&self) -> io::Result<BlobStream> {
        self.layers.open(&self.blob).await.map_err(io::Error::other)
    }

    fn is_verified(&self) -> bool {
        true
    }
}
