//! Descriptors: OCI image specification v1.1, `descriptor.md`.

use std::collections::BTreeMap;

use buildyard_model::{Digest, Platform};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a document says about a blob it refers to. Fields are in the order in which they are written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Descriptor {
    /// Type of the blob. An absent one is empty.
    #[serde(rename = "mediaType", default)]
    pub media_type: String,
    /// SHA-256 of the blob. Other algorithms are refused when a document is parsed.
    pub digest: Digest,
    /// Length of the blob in bytes.
    pub size: u64,
    /// Other places of the blob (foreign layers). Kept, never followed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Annotations.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
    /// The platform, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<DescriptorPlatform>,
    /// Everything else (`data`, `artifactType`).
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

pub(crate) fn null_is_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Descriptor {
    /// The descriptor of `bytes`.
    pub fn of(media_type: impl Into<String>, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }

    /// A descriptor with the three fields that each has.
    pub fn new(media_type: impl Into<String>, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.into(),
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            platform: None,
            extra: BTreeMap::new(),
        }
    }
}

/// A platform as documents write it. Unlike [`Platform`] it is not normalised.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DescriptorPlatform {
    /// GOARCH's name.
    #[serde(default)]
    pub architecture: String,
    /// GOOS's name.
    #[serde(default)]
    pub os: String,
    /// Version of the operating system (Windows).
    #[serde(
        rename = "os.version",
        default,
        skip_serializing_if = "String::is_empty"
    )]
    pub os_version: String,
    /// Features of the operating system (Windows).
    #[serde(
        rename = "os.features",
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_empty"
    )]
    pub os_features: Vec<String>,
    /// Variant of the architecture.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

impl DescriptorPlatform {
    /// The normalised platform.
    pub fn normalized(&self) -> Platform {
        Platform::new(&self.os, &self.architecture, &self.variant)
    }
}

impl From<&Platform> for DescriptorPlatform {
    fn from(platform: &Platform) -> Self {
        Self {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            variant: platform.variant.clone(),
            ..Self::default()
        }
    }
}
