//! The attributes of an output: each is taken by name; what nobody took, and nobody knows, is named in a warning.

use std::collections::BTreeMap;

use buildyard_image::{Compression, CompressionKind};

use super::ExportError;

/// Attributes that clients send and that have no effect here: there is no image store to unpack into or to name images in,
/// and what they ask of attestations comes with attestations.
const WITHOUT_EFFECT: [&str; 18] = [
    "attestation-inline",
    "attestation-prefix",
    "buildinfo",
    "buildinfo-attrs",
    "context",
    "danging-name-empty-only",
    "dangling-name-empty-only",
    "dangling-name-prefix",
    "dest",
    "mode",
    "name-canonical",
    "nondist-conversion",
    "oci-artifact",
    "prefer-image-digest",
    "prefer-nondist-layers",
    "store",
    "type",
    "unpack",
];

/// The attributes that are left.
pub(super) struct Attributes {
    exporter: String,
    left: BTreeMap<String, String>,
}

impl Attributes {
    pub(super) fn new(exporter: &str, attrs: &BTreeMap<String, String>) -> Self {
        Self {
            exporter: exporter.to_owned(),
            left: attrs.clone(),
        }
    }

    /// The exporter's type.
    pub(super) fn exporter(&self) -> &str {
        &self.exporter
    }

    /// An attribute that stays for somebody else.
    pub(super) fn peek(&self, name: &str) -> Option<&str> {
        self.left.get(name).map(String::as_str)
    }

    /// A text, taken.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        self.left.remove(name)
    }

    /// A truth value as Go reads it; an empty one is `true`.
    pub(super) fn flag(&mut self, name: &str) -> Result<Option<bool>, ExportError> {
        let Some(value) = self.text(name) else {
            return Ok(None);
        };
        match value.as_str() {
            "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Some(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Some(false)),
            _ => Err(self.refuse(format!("non-bool value {value:?} specified for {name}"))),
        }
    }

    /// All attributes whose name begins with `prefix`.
    pub(super) fn beginning_with(&mut self, prefix: &str) -> BTreeMap<String, String> {
        let names: Vec<String> = self
            .left
            .keys()
            .filter(|name| name.starts_with(prefix))
            .cloned()
            .collect();
        names
            .iter()
            .filter_map(|name| self.left.remove_entry(name))
            .collect()
    }

    /// `compression`, `compression-level` and `force-compression`; the encoding only where it was named.
    pub(super) fn compression(
        &mut self,
    ) -> Result<(Option<CompressionKind>, Compression, bool), ExportError> {
        let named = match self.text("compression") {
            None => None,
            Some(text) => {
                let kind = text
                    .parse::<CompressionKind>()
                    .map_err(|cause| self.refuse(cause.to_string()))?;
                Some(kind)
            }
        };
        let kind = named.unwrap_or(CompressionKind::Gzip);
        let most = match kind {
            CompressionKind::Uncompressed => 0,
            CompressionKind::Gzip => 9,
            CompressionKind::Zstd => 22,
        };
        let level = match self.text("compression-level") {
            None => None,
            Some(text) => {
                let level = text.parse::<u8>().ok().filter(|level| *level <= most);
                Some(level.ok_or_else(|| {
                    self.refuse(format!(
                        "compression-level {text:?} is not a level of {kind} (0 to {most})"
                    ))
                })?)
            }
        };
        let force = self.flag("force-compression")?.unwrap_or(false);
        Ok((named, Compression { kind, level }, force))
    }

    /// `source-date-epoch`. Times in layers stay as they are: `rewrite-timestamp` is refused.
    pub(super) fn epoch(&mut self) -> Result<Option<jiff::Timestamp>, ExportError> {
        if self.flag("rewrite-timestamp")? == Some(true) {
            return Err(self.refuse("rewrite-timestamp is not supported yet".to_owned()));
        }
        let Some(text) = self
            .text("source-date-epoch")
            .filter(|text| !text.is_empty())
        else {
            return Ok(None);
        };
        let time = text
            .parse()
            .ok()
            .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
        let refuse = || self.refuse(format!("source-date-epoch {text:?} is not in Unix seconds"));
        time.map(Some).ok_or_else(refuse)
    }

    /// What is left and not known: as BuildKit takes whatever a client sends, it is no error.
    pub(super) fn unknown(self) -> Vec<String> {
        let known = |name: &str| WITHOUT_EFFECT.contains(&name) || name.starts_with("vcs:");
        let names = self.left.into_keys();
        names.filter(|name| !known(name)).collect()
    }

    pub(super) fn refuse(&self, cause: String) -> ExportError {
        ExportError::Attribute {
            exporter: self.exporter.clone(),
            cause,
        }
    }
}
