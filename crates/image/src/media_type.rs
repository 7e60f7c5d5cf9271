//! Media types, in the two flavours that registries hold: OCI (image specification v1.1, `media-types.md`) and Docker
//! (distribution's `image manifest version 2, schema 2`). The two differ in name only.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
const OCI_FOREIGN: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar";
const DOCKER_FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar";

/// Which flavour of media types a document uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MediaTypes {
    /// `application/vnd.oci.…`
    Oci,
    /// `application/vnd.docker.…`
    Docker,
}

impl MediaTypes {
    /// The flavour for the exporter option `oci-mediatypes`.
    pub fn oci(wanted: bool) -> Self {
        if wanted { Self::Oci } else { Self::Docker }
    }

    /// The type of an index (Docker: manifest list).
    pub fn index(self) -> &'static str {
        match self {
            Self::Oci => OCI_INDEX,
            Self::Docker => DOCKER_INDEX,
        }
    }

    /// The type of one platform's manifest.
    pub fn manifest(self) -> &'static str {
        match self {
            Self::Oci => OCI_MANIFEST,
            Self::Docker => DOCKER_MANIFEST,
        }
    }

    /// The type of a configuration.
    pub fn config(self) -> &'static str {
        match self {
            Self::Oci => OCI_CONFIG,
            Self::Docker => DOCKER_CONFIG,
        }
    }

    /// The type of a layer in this encoding. Docker has no type for zstd of its own; like BuildKit we write
    /// the Docker type with the suffix `.zstd`.
    pub fn layer(self, kind: CompressionKind) -> String {
        let (base, separator) = match self {
            Self::Oci => (OCI_LAYER, '+'),
            Self::Docker => (DOCKER_LAYER, '.'),
        };
        with_suffix(base, separator, kind)
    }
}

fn with_suffix(base: &str, separator: char, kind: CompressionKind) -> String {
    match kind {
        CompressionKind::Uncompressed => base.to_owned(),
        CompressionKind::Gzip => format!("{base}{separator}gzip"),
        CompressionKind::Zstd => format!("{base}{separator}zstd"),
    }
}

/// The encoding that a layer's media type names, `None` for a type that is no layer of a file system.
pub fn layer_compression(media_type: &str) -> Option<CompressionKind> {
    layer_parts(media_type).map(|(_, kind)| kind)
}

/// The same type in the other flavour, for a layer that goes out unchanged under a manifest of that flavour. Types that
/// have no counterpart stay as they are.
pub fn to_flavour(media_type: &str, flavour: MediaTypes) -> String {
    let Some((foreign, kind)) = layer_parts(media_type) else {
        return media_type.to_owned();
    };
    match (flavour, foreign) {
        (flavour, false) => flavour.layer(kind),
        (MediaTypes::Oci, true) => with_suffix(OCI_FOREIGN, '+', kind),
        (MediaTypes::Docker, true) => with_suffix(DOCKER_FOREIGN, '.', kind),
    }
}

/// Whether the layer is a foreign (non-distributable) one, and its encoding.
fn layer_parts(media_type: &str) -> Option<(bool, CompressionKind)> {
    let bases = [
        (OCI_LAYER, false),
        (OCI_FOREIGN, true),
        (DOCKER_LAYER, false),
        (DOCKER_FOREIGN, true),
    ];
    bases.into_iter().find_map(|(base, foreign)| {
        let kind = match media_type.strip_prefix(base)? {
            "" => CompressionKind::Uncompressed,
            "+gzip" | ".gzip" => CompressionKind::Gzip,
            "+zstd" | ".zstd" => CompressionKind::Zstd,
            _ => return None,
        };
        Some((foreign, kind))
    })
}

/// How a layer's tar form is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum CompressionKind {
    /// The tar form itself.
    Uncompressed,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

/// An encoding with its level, as exporters are asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Compression {
    /// The encoding.
    pub kind: CompressionKind,
    /// gzip 0 to 9, zstd 0 to 22; `None` is the encoder's default.
    pub level: Option<u8>,
}

impl Default for Compression {
    fn default() -> Self {
        Self {
            kind: CompressionKind::Gzip,
            level: None,
        }
    }
}

/// A text that names no encoding, or one that isn't made here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("compression {0:?} is not supported (want gzip, zstd or uncompressed)")]
pub struct ParseCompressionError(String);

impl FromStr for CompressionKind {
    type Err = ParseCompressionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "uncompressed" => Ok(Self::Uncompressed),
            "gzip" => Ok(Self::Gzip),
            "zstd" => Ok(Self::Zstd),
            other => Err(ParseCompressionError(other.chars().take(100).collect())),
        }
    }
}

impl fmt::Display for CompressionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uncompressed => "uncompressed",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_change_their_flavour_and_nothing_else() {
        let check = |text: &str, oci: &str, docker: &str| {
            assert_eq!(to_flavour(text, MediaTypes::Oci), oci);
            assert_eq!(to_flavour(text, MediaTypes::Docker), docker);
        };
        let gzip = (
            "application/vnd.oci.image.layer.v1.tar+gzip",
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
        );
        check(gzip.0, gzip.0, gzip.1);
        check(gzip.1, gzip.0, gzip.1);
        check(DOCKER_LAYER, OCI_LAYER, DOCKER_LAYER);
        check("text/plain", "text/plain", "text/plain");
        let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
        check(
            foreign,
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            foreign,
        );
    }

    #[test]
    fn a_media_type_names_its_encoding() {
        let check = |text: &str, expected| assert_eq!(layer_compression(text), expected, "{text}");
        check(
            "application/vnd.oci.image.layer.v1.tar",
            Some(CompressionKind::Uncompressed),
        );
        check(
            "application/vnd.oci.image.layer.v1.tar+zstd",
            Some(CompressionKind::Zstd),
        );
        check(
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
            Some(CompressionKind::Gzip),
        );
        check("application/vnd.oci.image.layer.v1.tar+encrypted", None);
        check("application/vnd.in-toto+json", None);
    }
}
