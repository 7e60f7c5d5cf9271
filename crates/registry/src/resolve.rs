//! From a reference and a platform to an image.

use buildyard_image::{
    Descriptor, DescriptorPlatform, Document, ImageConfig, Index, MAX_CONFIG_SIZE, Manifest,
    PlatformChoice, accepted_platforms, choose, layer_compression, parse_config,
};
use buildyard_model::{Digest, Platform};
use bytes::Bytes;
use futures::TryStreamExt;

use crate::{Fetched, Reference, Registry, RegistryError};

/// How many indexes may lie inside each other.
const MAX_DEPTH: usize = 4;
/// How many configurations are read to find the platform of entries that name none.
const MAX_UNNAMED: usize = 10;

/// One platform's image, as a registry has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// The reference that was asked for, with the digest of what it names: the index if there is one.
    pub reference: Reference,
    /// Digest of the index that the manifest was found in.
    pub index_digest: Option<Digest>,
    /// Digest of the platform's manifest.
    pub manifest_digest: Digest,
    /// The configuration.
    pub config: ImageConfig,
    /// The configuration's bytes, whose digest the manifest names.
    pub config_bytes: Bytes,
    /// The layers, lowest first.
    pub layers: Vec<PulledLayer>,
}

/// A layer in a registry.
#[derive(Debug, Clone, PartialEq)]
pub struct PulledLayer {
    /// SHA-256 of the tar form, which the configuration promises and whoever reads the layer checks.
    pub diff_id: Digest,
    /// Digest, size and media type of the blob.
    pub descriptor: Descriptor,
}

impl Registry {
    /// Finds the image that `reference` has for `platform`: manifest and configuration are read, layers are not.
    pub async fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Resolved, RegistryError> {
        let found = self.find(reference, platform).await?;
        let config_bytes = match found.config {
            Some(bytes) => bytes,
            None => self.read_config(reference, &found.manifest.config).await?,
        };
        let config = read(reference, &config_bytes)?;
        let layers = pair(reference, &found.manifest, &config)?;
        Ok(Resolved {
            reference: reference.at(found.root),
            index_digest: found.index,
            manifest_digest: found.digest,
            config,
            config_bytes,
            layers,
        })
    }

    async fn find(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Found, RegistryError> {
        let mut fetched = self.named(reference).await?;
        let root = fetched.digest;
        let mut index = None;
        for _ in 0..MAX_DEPTH {
            let inner = match fetched.parse(reference)? {
                Document::Manifest(manifest) => {
                    return Ok(Found {
                        root,
                        index,
                        digest: fetched.digest,
                        manifest,
                        config: None,
                    });
                }
                Document::Index(inner) => inner,
            };
            index = index.or(Some(root));
            let entry = match choose(&inner, platform) {
                PlatformChoice::Entry(entry) => entry.digest,
                PlatformChoice::Unnamed(entries) => {
                    let found = self
                        .find_unnamed(reference, platform, &inner, &entries)
                        .await?;
                    return Ok(Found {
                        root,
                        index,
                        ..found
                    });
                }
                PlatformChoice::Missing(available) => {
                    return Err(missing(reference, platform, available));
                }
            };
            fetched = self.entry(reference, entry).await?;
        }
        let cause = format!("more than {MAX_DEPTH} indexes lie inside each other");
        Err(RegistryError::Document {
            what: reference.to_string(),
            cause,
        })
    }

    /// Entries without a platform: their configurations name it.
    async fn find_unnamed(
        &self,
        reference: &Reference,
        platform: &Platform,
        index: &Index,
        entries: &[&Descriptor],
    ) -> Result<Found, RegistryError> {
        let accepted = accepted_platforms(platform);
        let named = index
            .manifests
            .iter()
            .filter_map(|entry| entry.platform.as_ref());
        let mut available: Vec<Platform> = named.map(DescriptorPlatform::normalized).collect();
        for entry in entries.iter().take(MAX_UNNAMED) {
            let fetched = self.entry(reference, entry.digest).await?;
            let Document::Manifest(manifest) = fetched.parse(reference)? else {
                continue;
            };
            let bytes = self.read_config(reference, &manifest.config).await?;
            let config = read(reference, &bytes)?;
            let found = Platform::new(&config.os, &config.architecture, &config.variant);
            if accepted.contains(&found) {
                let digest = fetched.digest;
                return Ok(Found {
                    root: digest,
                    index: None,
                    digest,
                    manifest,
                    config: Some(bytes),
                });
            }
            available.push(found);
        }
        Err(missing(reference, platform, available))
    }

    /// A manifest that an index of the same repository lists.
    async fn entry(&self, reference: &Reference, entry: Digest) -> Result<Fetched, RegistryError> {
        if let Some(known) = self.documents().manifest(reference, entry) {
            return Ok(known);
        }
        let fetched = self.manifest(&reference.at(entry)).await?;
        self.documents().keep_manifest(reference, &fetched);
        Ok(fetched)
    }

    async fn read_config(
        &self,
        reference: &Reference,
        config: &Descriptor,
    ) -> Result<Bytes, RegistryError> {
        if let Some(known) = self.documents().config(reference, config.digest) {
            return Ok(known);
        }
        let refuse = |cause: String| RegistryError::Document {
            what: reference.to_string(),
            cause,
        };
        if config.size > MAX_CONFIG_SIZE {
            return Err(refuse(format!(
                "configuration has {} bytes, the limit is {MAX_CONFIG_SIZE}",
                config.size
            )));
        }
        let parts: Result<Vec<Bytes>, _> = self
            .fetch_blob(reference, config)
            .await?
            .try_collect()
            .await;
        // The stream's errors are this crate's own, wrapped for readers of streams.
        let parts = parts.map_err(|error| {
            match error.get_ref().and_then(|inner| inner.downcast_ref()) {
                Some(own) => RegistryError::clone(own),
                None => refuse(format!("configuration: {error}")),
            }
        })?;
        let bytes = Bytes::from(parts.concat());
        self.documents()
            .keep_config(reference, config.digest, &bytes);
        Ok(bytes)
    }
}

struct Found {
    /// What the reference names.
    root: Digest,
    index: Option<Digest>,
    digest: Digest,
    manifest: Box<Manifest>,
    config: Option<Bytes>,
}

fn missing(
    reference: &Reference,
    platform: &Platform,
    mut available: Vec<Platform>,
) -> RegistryError {
    available.sort();
    available.dedup();
    RegistryError::NoSuchPlatform {
        reference: reference.to_string(),
        platform: platform.clone(),
        available,
    }
}

fn read(reference: &Reference, bytes: &[u8]) -> Result<ImageConfig, RegistryError> {
    parse_config(bytes).map_err(|cause| RegistryError::Document {
        what: reference.to_string(),
        cause: cause.to_string(),
    })
}

/// Brings the manifest's layers and the configuration's diff ids together.
fn pair(
    reference: &Reference,
    manifest: &Manifest,
    config: &ImageConfig,
) -> Result<Vec<PulledLayer>, RegistryError> {
    let refuse = |cause: String| RegistryError::Document {
        what: reference.to_string(),
        cause,
    };
    let diff_ids = config
        .diff_ids()
        .ok_or_else(|| refuse("a diff id of its configuration is no digest".to_owned()))?;
    let (layers, ids) = (manifest.layers.len(), diff_ids.len());
    if layers != ids {
        return Err(refuse(format!(
            "its manifest has {layers} layers, its configuration {ids} diff ids"
        )));
    }
    if let Some(other) = manifest
        .layers
        .iter()
        .find(|layer| layer_compression(&layer.media_type).is_none())
    {
        return Err(refuse(format!(
            "media type {:?} is not that of a layer",
            other.media_type
        )));
    }
    let pairs = diff_ids.into_iter().zip(&manifest.layers);
    Ok(pairs
        .map(|(diff_id, descriptor)| PulledLayer {
            diff_id,
            descriptor: descriptor.clone(),
        })
        .collect())
}
