//! Manifests and indexes: OCI image specification v1.1, `manifest.md` and `image-index.md`, and Docker's counterparts.

use std::collections::BTreeMap;

use buildyard_model::Digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::descriptor::{Descriptor, null_is_empty};
use crate::media_type::{DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use crate::{ImageConfig, MediaTypes};

/// The longest manifest or index that is read or written: what registries accept.
pub const MAX_MANIFEST_SIZE: u64 = 4 << 20;
/// The longest configuration that is read.
pub const MAX_CONFIG_SIZE: u64 = 8 << 20;
/// The most layers that an image may have. The kernel stacks at most 500 directories; real images stay under 128.
pub const MAX_LAYERS: usize = 1000;
/// The most entries that an index may have.
pub const MAX_INDEX_ENTRIES: usize = 1000;

/// A document that is not what its media type says, or breaks a limit.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Not JSON of this shape.
    #[error("{what} is malformed: {cause}")]
    Malformed {
        /// `manifest`, `index` or `configuration`.
        what: &'static str,
        /// What the parser said.
        cause: serde_json::Error,
    },
    /// A media type that is no image.
    #[error(
        "media type {0:?} is not that of an image (Docker's schema 1 images must be converted first)"
    )]
    Unsupported(String),
    /// Two readers could take the document for different things.
    #[error("the document says it is {claimed:?} but was served as {served:?}")]
    Ambiguous {
        /// The field `mediaType`.
        claimed: String,
        /// The header `Content-Type`.
        served: String,
    },
    /// Too long, or with too many entries.
    #[error("{what} has {count} {unit}, the limit is {limit}")]
    TooLarge {
        /// `manifest`, `index` or `configuration`.
        what: &'static str,
        /// How many there are.
        count: u64,
        /// `bytes`, `layers` or `entries`.
        unit: &'static str,
        /// How many there may be.
        limit: u64,
    },
}

/// One platform's image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// The manifest's own type; older OCI documents leave it out.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, lowest first.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub layers: Vec<Descriptor>,
    /// Annotations.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
    /// Everything else (`artifactType`, `subject`).
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

impl Manifest {
    /// A manifest without annotations.
    pub fn new(types: MediaTypes, config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: types.manifest().to_owned(),
            config,
            layers,
            annotations: BTreeMap::new(),
            extra: BTreeMap::new(),
        }
    }

    /// The bytes that travel, indented by two spaces as BuildKit does.
    pub fn to_bytes(&self) -> Vec<u8> {
        pretty(self)
    }
}

/// The images of several platforms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// The index's own type; older OCI documents leave it out.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// The entries.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub manifests: Vec<Descriptor>,
    /// Annotations.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
    /// Everything else (`artifactType`, `subject`).
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

impl Index {
    /// An index without annotations.
    pub fn new(types: MediaTypes, manifests: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: types.index().to_owned(),
            manifests,
            annotations: BTreeMap::new(),
            extra: BTreeMap::new(),
        }
    }

    /// The bytes that travel, indented by two spaces as BuildKit does.
    pub fn to_bytes(&self) -> Vec<u8> {
        pretty(self)
    }
}

fn pretty<T: Serialize>(document: &T) -> Vec<u8> {
    serde_json::to_vec_pretty(document)
        .expect("these documents have string keys only and no failing serializer")
}

impl ImageConfig {
    /// The bytes that travel, on one line as BuildKit writes them.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self)
            .expect("a configuration has string keys only and no failing serializer")
    }
}

/// What a reference leads to.
#[derive(Debug, Clone, PartialEq)]
pub enum Document {
    /// One platform.
    Manifest(Box<Manifest>),
    /// Several.
    Index(Index),
}

impl Document {
    /// Reads a document that was served as `media_type` (parameters behind `;` are ignored). The type in the document
    /// must be the same, where both are given: else two readers could see two images under one digest.
    pub fn parse(media_type: &str, bytes: &[u8]) -> Result<Self, DocumentError> {
        within("manifest", bytes.len(), "bytes", MAX_MANIFEST_SIZE)?;
        let served = media_type.split(';').next().unwrap_or_default().trim();
        let claimed = claimed_type(bytes)?;
        let known =
            |name: &str| [OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST].contains(&name);
        if known(served) && !claimed.is_empty() && claimed != served {
            return Err(DocumentError::Ambiguous {
                claimed,
                served: served.to_owned(),
            });
        }
        let name = if known(served) {
            served
        } else {
            claimed.as_str()
        };
        match name {
            OCI_MANIFEST | DOCKER_MANIFEST => {
                parse_manifest(bytes).map(|manifest| Self::Manifest(Box::new(manifest)))
            }
            OCI_INDEX | DOCKER_INDEX => parse_index(bytes).map(Self::Index),
            _ => Err(DocumentError::Unsupported(if served.is_empty() {
                claimed
            } else {
                served.to_owned()
            })),
        }
    }
}

fn claimed_type(bytes: &[u8]) -> Result<String, DocumentError> {
    #[derive(Deserialize)]
    struct Claimed {
        #[serde(rename = "mediaType", default)]
        media_type: String,
    }
    let claimed: Claimed = from_json("manifest", bytes)?;
    Ok(claimed.media_type)
}

fn parse_manifest(bytes: &[u8]) -> Result<Manifest, DocumentError> {
    let manifest: Manifest = from_json("manifest", bytes)?;
    within(
        "manifest",
        manifest.layers.len(),
        "layers",
        MAX_LAYERS as u64,
    )?;
    within(
        "configuration",
        manifest.config.size as usize,
        "bytes",
        MAX_CONFIG_SIZE,
    )?;
    Ok(manifest)
}

fn parse_index(bytes: &[u8]) -> Result<Index, DocumentError> {
    let index: Index = from_json("index", bytes)?;
    within(
        "index",
        index.manifests.len(),
        "entries",
        MAX_INDEX_ENTRIES as u64,
    )?;
    Ok(index)
}

/// Reads a configuration.
pub fn parse_config(bytes: &[u8]) -> Result<ImageConfig, DocumentError> {
    within("configuration", bytes.len(), "bytes", MAX_CONFIG_SIZE)?;
    let config: ImageConfig = from_json("configuration", bytes)?;
    within(
        "configuration",
        config.rootfs.diff_ids.len(),
        "layers",
        MAX_LAYERS as u64,
    )?;
    Ok(config)
}

fn from_json<'a, T: Deserialize<'a>>(
    what: &'static str,
    bytes: &'a [u8],
) -> Result<T, DocumentError> {
    serde_json::from_slice(bytes).map_err(|cause| DocumentError::Malformed { what, cause })
}

fn within(
    what: &'static str,
    count: usize,
    unit: &'static str,
    limit: u64,
) -> Result<(), DocumentError> {
    let count = count as u64;
    if count > limit {
        return Err(DocumentError::TooLarge {
            what,
            count,
            unit,
            limit,
        });
    }
    Ok(())
}

impl ImageConfig {
    /// The layers' diff ids, `None` where one is not a SHA-256 digest.
    pub fn diff_ids(&self) -> Option<Vec<Digest>> {
        self.rootfs
            .diff_ids
            .iter()
            .map(|text| text.parse().ok())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Manifest {
        let types = MediaTypes::Oci;
        let layer = Descriptor::of(types.layer(crate::CompressionKind::Gzip), b"layer");
        Manifest::new(types, Descriptor::of(types.config(), b"{}"), vec![layer])
    }

    #[test]
    fn a_manifest_is_written_as_it_always_was() {
        insta::assert_snapshot!(String::from_utf8(sample().to_bytes()).expect("JSON is UTF-8"), @r#"
        {
          "schemaVersion": 2,
          "mediaType": "application/vnd.oci.image.manifest.v1+json",
          "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
            "size": 2
          },
          "layers": [
            {
              "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
              "digest": "sha256:dac1d7cfa95021764849fd102524e141488c5e3a90f861dbb5a12d9ac8584f85",
              "size": 5
            }
          ]
        }
        "#);
    }

    #[test]
    fn a_document_is_read_by_its_type() {
        let bytes = sample().to_bytes();
        let read = |served: &str| Document::parse(served, &bytes);
        assert!(matches!(read(OCI_MANIFEST), Ok(Document::Manifest(m)) if *m == sample()));
        assert!(matches!(
            read("application/json"),
            Ok(Document::Manifest(_))
        ));
        assert!(matches!(
            read(&format!("{OCI_MANIFEST}; charset=utf-8")),
            Ok(Document::Manifest(_))
        ));
        assert!(matches!(
            read(OCI_INDEX),
            Err(DocumentError::Ambiguous { .. })
        ));
        let schema1 = br#"{"schemaVersion": 1}"#;
        let served = "application/vnd.docker.distribution.manifest.v1+prettyjws";
        assert!(matches!(
            Document::parse(served, schema1),
            Err(DocumentError::Unsupported(_))
        ));
        assert!(matches!(
            Document::parse("", b"{"),
            Err(DocumentError::Malformed { .. })
        ));
    }

    #[test]
    fn limits_hold() {
        let mut index = Index::new(MediaTypes::Docker, Vec::new());
        index.manifests = vec![Descriptor::of(DOCKER_MANIFEST, b"x"); MAX_INDEX_ENTRIES + 1];
        let error = Document::parse(DOCKER_INDEX, &index.to_bytes())
            .map(|_| ())
            .map_err(|e| e.to_string());
        assert_eq!(
            error,
            Err("index has 1001 entries, the limit is 1000".to_owned())
        );
        let long = vec![b' '; MAX_MANIFEST_SIZE as usize + 1];
        assert!(matches!(
            Document::parse(OCI_MANIFEST, &long),
            Err(DocumentError::TooLarge { .. })
        ));
        let mut manifest = sample();
        manifest.config.size = u64::MAX;
        let bytes = manifest.to_bytes();
        assert!(matches!(
            Document::parse(OCI_MANIFEST, &bytes),
            Err(DocumentError::TooLarge { .. })
        ));
    }

    #[test]
    fn lists_that_go_wrote_as_null_are_empty() {
        let text = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":null}"#;
        assert!(
            matches!(Document::parse("", text), Ok(Document::Index(index)) if index.manifests.is_empty())
        );
    }
}
