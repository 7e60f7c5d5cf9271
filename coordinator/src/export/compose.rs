//! The documents of a finished build: configurations, manifests, the index, over layers as they go out.

use buildyard_image::{
    Compression, CompressionKind, Descriptor, DescriptorPlatform, Index, LayerRecord, Manifest,
    MediaTypes, assemble_config, to_flavour,
};
use buildyard_model::{LayerId, Platform};
use buildyard_registry::Reference;
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::annotations::Annotations;
use super::attributes::Attributes;
use super::{ExportError, ExportRequest, LayerBlob, PlatformImage};

/// How many layers are made ready at one time.
const MAX_LAYERS_AT_ONCE: usize = 8;

/// What the exporters of images have in common.
#[derive(Debug, Clone)]
pub(super) struct ImageOptions {
    pub(super) names: Vec<Reference>,
    types: MediaTypes,
    compression: Compression,
    force: bool,
    annotations: Annotations,
    /// RFC 3339.
    epoch: Option<String>,
}

/// A document with its descriptor.
#[derive(Debug, Clone)]
pub(super) struct Document {
    pub(super) descriptor: Descriptor,
    pub(super) bytes: Bytes,
}

/// One platform's documents and layers.
#[derive(Debug, Clone)]
pub(super) struct Composed {
    pub(super) manifest: Document,
    pub(super) config: Document,
    pub(super) layers: Vec<LayerBlob>,
}

/// All of a build's documents.
#[derive(Debug, Clone)]
pub(super) struct Composition {
    pub(super) platforms: Vec<Composed>,
    pub(super) index: Option<Document>,
}

impl Composition {
    /// What the image's name stands for: the index if there is one, else the manifest.
    pub(super) fn root(&self) -> &Document {
        // There is an index wherever there isn't exactly one platform.
        self.index
            .as_ref()
            .unwrap_or_else(|| &self.platforms[0].manifest)
    }
}

impl ImageOptions {
    /// Reads the options. `types` is the flavour where the output names none.
    pub(super) fn parse(
        attributes: &mut Attributes,
        types: MediaTypes,
    ) -> Result<Self, ExportError> {
        let names = parse_names(attributes)?;
        let wanted = attributes.flag("oci-mediatypes")?;
        let annotations = Annotations::parse(attributes)?;
        let (named, compression, force) = attributes.compression()?;
        let mut types = wanted.map_or(types, MediaTypes::oci);
        // Docker's documents know neither annotations nor zstd.
        if annotations != Annotations::default() || named == Some(CompressionKind::Zstd) {
            types = MediaTypes::Oci;
        }
        Ok(Self {
            names,
            types,
            compression,
            force,
            annotations,
            epoch: attributes.epoch()?.map(|time| time.to_string()),
        })
    }

    /// Makes all documents; layers that nobody needed encoded before are encoded on the way.
    pub(super) async fn compose(
        &self,
        request: &ExportRequest<'_>,
    ) -> Result<Composition, ExportError> {
        let has_index = request.multi_platform || request.images.len() != 1;
        let platforms: Vec<&Platform> =
            request.images.iter().map(|image| &image.platform).collect();
        self.annotations.check(&platforms, has_index)?;
        request.progress.begin("exporting layers");
        let described = self.describe_layers(request).await;
        request.progress.end("exporting layers");
        let mut composed = Vec::new();
        for (image, layers) in request.images.iter().zip(described?) {
            let platform = self.compose_platform(image, layers);
            shown(request, "manifest", &platform.manifest);
            shown(request, "config", &platform.config);
            composed.push(platform);
        }
        let index = has_index.then(|| self.compose_index(request.images, &composed));
        if let Some(index) = &index {
            shown(request, "manifest list", index);
        }
        Ok(Composition {
            platforms: composed,
            index,
        })
    }

    /// The layers of each image, as they go out.
    async fn describe_layers(
        &self,
        request: &ExportRequest<'_>,
    ) -> Result<Vec<Vec<LayerBlob>>, ExportError> {
        let images = request.images.iter();
        let all: Vec<LayerId> = images
            .flat_map(|image| image.layers.iter().map(|layer| layer.layer))
            .collect();
        let (compression, force, types) = (self.compression, self.force, self.types);
        let described = stream::iter(all).map(|layer| {
            let layers = request.layers.clone();
            async move {
                let mut blob = layers.describe(layer, compression, force).await?;
                let media_type = to_flavour(&blob.descriptor.media_type, types);
                // Annotations of a layer where it came from are not this image's.
                blob.descriptor =
                    Descriptor::new(media_type, blob.descriptor.digest, blob.descriptor.size);
                Ok::<_, ExportError>(blob)
            }
        });
        let described: Vec<LayerBlob> =
            described.buffered(MAX_LAYERS_AT_ONCE).try_collect().await?;
        let mut rest = described.into_iter();
        Ok(request
            .images
            .iter()
            .map(|image| rest.by_ref().take(image.layers.len()).collect())
            .collect())
    }

    fn compose_platform(&self, image: &PlatformImage, layers: Vec<LayerBlob>) -> Composed {
        let records: Vec<LayerRecord> = layers
            .iter()
            .zip(&image.layers)
            .map(|(blob, layer)| LayerRecord {
                diff_id: blob.diff_id,
                created: layer.created.clone(),
                description: layer.description.clone(),
            })
            .collect();
        let config = assemble_config(&image.config, &records, self.epoch.as_deref());
        let config = document(self.types.config(), config.to_bytes());
        let descriptors = layers.iter().map(|blob| blob.descriptor.clone()).collect();
        let mut manifest = Manifest::new(self.types, config.descriptor.clone(), descriptors);
        manifest.annotations = self.annotations.manifest(&image.platform);
        let mut manifest = document(self.types.manifest(), manifest.to_bytes());
        manifest.descriptor.annotations = self.annotations.manifest_descriptor(&image.platform);
        manifest.descriptor.platform = Some(DescriptorPlatform::from(&image.platform));
        Composed {
            manifest,
            config,
            layers,
        }
    }

    fn compose_index(&self, images: &[PlatformImage], composed: &[Composed]) -> Document {
        debug_assert_eq!(images.len(), composed.len());
        let entries = composed
            .iter()
            .map(|platform| platform.manifest.descriptor.clone())
            .collect();
        let mut index = Index::new(self.types, entries);
        index.annotations = self.annotations.index.clone();
        let mut index = document(self.types.index(), index.to_bytes());
        index.descriptor.annotations = self.annotations.index_descriptor.clone();
        index
    }
}

fn document(media_type: &str, bytes: Vec<u8>) -> Document {
    Document {
        descriptor: Descriptor::of(media_type, &bytes),
        bytes: bytes.into(),
    }
}

fn shown(request: &ExportRequest<'_>, what: &str, document: &Document) {
    let part = format!("exporting {what} {}", document.descriptor.digest);
    request.progress.begin(&part);
    request.progress.end(&part);
}

/// `name`: references separated by commas.
fn parse_names(attributes: &mut Attributes) -> Result<Vec<Reference>, ExportError> {
    let text = attributes.text("name").unwrap_or_default();
    let mut names: Vec<Reference> = Vec::new();
    for name in text.split(',').filter(|name| !name.is_empty()) {
        let name: Reference = name
            .parse()
            .map_err(|cause| attributes.refuse(format!("failed to parse {name:?}: {cause}")))?;
        if name.digest.is_some() {
            return Err(attributes.refuse(format!(
                "name {name} has a digest; the image gets the one that it has"
            )));
        }
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}
