//! References to images, written and completed as Docker does: `alpine` is `docker.io/library/alpine:latest`.

use std::fmt;
use std::str::FromStr;

use buildyard_model::Digest;

/// The registry behind the name `docker.io`.
const DOCKER_HUB: &str = "registry-1.docker.io";
const DEFAULT_TAG: &str = "latest";

/// A complete reference: a registry, a repository in it, and a tag, a digest or both.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    /// `docker.io`, `localhost:5000`.
    pub registry: String,
    /// `library/alpine`.
    pub repository: String,
    /// The tag; `latest` where the text had neither tag nor digest.
    pub tag: Option<String>,
    /// The digest. Where there is one the tag is only for people.
    pub digest: Option<Digest>,
}

/// A text that is no reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an image reference: {cause}")]
pub struct ParseReferenceError {
    text: String,
    cause: String,
}

impl Reference {
    /// The host (and port) that serves the registry, which is another one for Docker Hub.
    pub fn host(&self) -> &str {
        if self.registry == "docker.io" {
            DOCKER_HUB
        } else {
            &self.registry
        }
    }

    /// `docker.io/library/alpine`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// This repository's document with this digest.
    pub fn at(&self, digest: Digest) -> Self {
        Self {
            digest: Some(digest),
            ..self.clone()
        }
    }

    /// What the registry is asked for: the digest, else the tag.
    pub(crate) fn target(&self) -> String {
        match (self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => DEFAULT_TAG.to_owned(),
        }
    }
}

impl FromStr for Reference {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = |cause: String| ParseReferenceError {
            text: text.chars().take(300).collect(),
            cause,
        };
        let parsed: oci_client::Reference =
            text.parse().map_err(|cause| refuse(format!("{cause}")))?;
        let digest = parsed
            .digest()
            .map(str::parse)
            .transpose()
            .map_err(|cause| refuse(format!("{cause}")))?;
        // The parser adds the tag `latest` also behind a digest.
        let named = text.split('@').next().unwrap_or(text);
        let has_tag = named
            .rsplit('/')
            .next()
            .is_some_and(|last| last.contains(':'));
        let tag =
            (has_tag || digest.is_none()).then(|| parsed.tag().unwrap_or(DEFAULT_TAG).to_owned());
        Ok(Self {
            registry: parsed.registry().to_owned(),
            repository: parsed.repository().to_owned(),
            tag,
            digest,
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_completed() {
        let check = |text: &str, expected: &str| {
            let shown = text
                .parse::<Reference>()
                .map(|reference| reference.to_string());
            assert_eq!(shown.as_deref(), Ok(expected), "{text}");
        };
        let digest = Digest::of("x");
        check("alpine", "docker.io/library/alpine:latest");
        check("alpine:3", "docker.io/library/alpine:3");
        check("user/app", "docker.io/user/app:latest");
        check("index.docker.io/user/app", "docker.io/user/app:latest");
        check("localhost:5000/app", "localhost:5000/app:latest");
        check("localhost/app:v1", "localhost/app:v1");
        check("127.0.0.1:5000/a/b/c", "127.0.0.1:5000/a/b/c:latest");
        check(
            &format!("alpine@{digest}"),
            &format!("docker.io/library/alpine@{digest}"),
        );
        check(
            &format!("reg.example:1/a:3@{digest}"),
            &format!("reg.example:1/a:3@{digest}"),
        );
        check(
            &format!("reg.example:1/a@{digest}"),
            &format!("reg.example:1/a@{digest}"),
        );
    }

    #[test]
    fn other_texts_are_refused() {
        let long = "a/".repeat(300);
        for text in [
            "",
            "Alpine",
            "a b",
            "alpine:",
            "a@sha256:12",
            "-x",
            "a//b",
            "../a",
            "localhost:5000/",
            &long,
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
        let sha512 = format!("a@sha512:{}", "0".repeat(128));
        assert!(sha512.parse::<Reference>().is_err());
    }
}
