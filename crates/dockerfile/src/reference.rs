//! Image references: `alpine` is `docker.io/library/alpine:latest`.
//!
//! Grammar and normal form of the `distribution/reference` package, which every client uses.

use buildyard_model::Digest;

/// A reference in its normal form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    /// `docker.io/library/alpine`.
    name: String,
    tag: Option<String>,
    digest: Option<String>,
}

impl Reference {
    /// Reads a reference; one without tag and digest gets the tag `latest`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        const INVALID: &str = "invalid reference format";
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        let slash = rest.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match rest[slash..].split_once(':') {
            Some((last, tag)) => (&rest[..slash + last.len()], Some(tag)),
            None => (rest, None),
        };
        let (domain, path) = split_domain(name);
        if path.chars().any(|c| c.is_ascii_uppercase()) {
            return Err(format!(
                "{INVALID}: repository name ({path}) must be lowercase"
            ));
        }
        if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(format!(
                "invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
            ));
        }
        let sound = is_domain(&domain)
            && path.split('/').all(is_component)
            && tag.is_none_or(is_tag)
            && digest.is_none_or(|digest| digest.parse::<Digest>().is_ok());
        let name = format!("{domain}/{path}");
        if !sound || name.len() > 255 {
            return Err(INVALID.to_owned());
        }
        let latest = (tag.is_none() && digest.is_none()).then_some("latest");
        Ok(Self {
            name,
            tag: tag.or(latest).map(str::to_owned),
            digest: digest.map(str::to_owned),
        })
    }

    /// The same image, fixed to these bytes.
    pub(crate) fn with_digest(&self, digest: Digest) -> Self {
        Self {
            digest: Some(digest.to_string()),
            ..self.clone()
        }
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// The registry's host and the path in it.
fn split_domain(name: &str) -> (String, String) {
    const HUB: &str = "docker.io";
    let is_host = |first: &str| {
        first.contains(['.', ':'])
            || first == "localhost"
            || first.chars().any(|c| c.is_ascii_uppercase())
    };
    let (domain, path) = match name.split_once('/') {
        Some((first, path)) if is_host(first) => (first, path),
        _ => (HUB, name),
    };
    let domain = if domain == "index.docker.io" {
        HUB
    } else {
        domain
    };
    match domain == HUB && !path.contains('/') {
        true => (domain.to_owned(), format!("library/{path}")),
        false => (domain.to_owned(), path.to_owned()),
    }
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (domain, None),
    };
    let label = |label: &str| {
        let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        edge(label.as_bytes().first())
            && edge(label.as_bytes().last())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let ipv6 = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let host_is_sound = match ipv6 {
        Some(address) => {
            !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':')
        }
        None => host.split('.').all(label),
    };
    host_is_sound
        && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

/// Lowercase letters and digits, parted by `.`, `_`, `__` or any number of `-`.
fn is_component(component: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let edges = component
        .as_bytes()
        .first()
        .copied()
        .is_some_and(alphanumeric)
        && component
            .as_bytes()
            .last()
            .copied()
            .is_some_and(alphanumeric);
    edges
        && component
            .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            .all(|between| {
                matches!(between, "" | "." | "_" | "__") || between.bytes().all(|b| b == b'-')
            })
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= 128
        && tag.as_bytes().first().copied().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_get_their_normal_form() {
        let check = |text: &str, expected: &str| {
            assert_eq!(
                Reference::parse(text).map(|r| r.to_string()).as_deref(),
                Ok(expected),
                "{text}"
            );
        };
        check("alpine", "docker.io/library/alpine:latest");
        check("alpine:3", "docker.io/library/alpine:3");
        check("user/app", "docker.io/user/app:latest");
        check("index.docker.io/app", "docker.io/library/app:latest");
        check("localhost/app:1", "localhost/app:1");
        check("localhost:5000/a/b__c.d-e:1", "localhost:5000/a/b__c.d-e:1");
        check("127.0.0.1:5000/app", "127.0.0.1:5000/app:latest");
        check("[::1]:5000/app", "[::1]:5000/app:latest");
        check("Host/app", "Host/app:latest");
        let digest = Digest::of("x");
        check(
            &format!("a@{digest}"),
            &format!("docker.io/library/a@{digest}"),
        );
        check(
            &format!("a:1@{digest}"),
            &format!("docker.io/library/a:1@{digest}"),
        );
        assert_eq!(
            Reference::parse("a")
                .expect("sound")
                .with_digest(digest)
                .to_string(),
            format!("docker.io/library/a:latest@{digest}")
        );
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            ":",
            "a:",
            "a@",
            "a@sha256:12",
            "A",
            "a b",
            "a//b",
            "/a",
            "a/",
            "-a",
            "a..b",
            "a___b",
            "a:-x",
            "h:p/a",
            "docker.io",
            ".x/a",
            &"a".repeat(64),
            &"x".repeat(300),
        ] {
            if text == "docker.io" {
                assert_eq!(
                    Reference::parse(text).expect("a name").to_string(),
                    "docker.io/library/docker.io:latest"
                );
                continue;
            }
            assert!(Reference::parse(text).is_err(), "{text:?}");
        }
        assert!(
            Reference::parse("App")
                .expect_err("uppercase")
                .contains("must be lowercase")
        );
    }
}
