//! Image names as users type them, completed as Docker does: `app` is `docker.io/library/app:latest`.
//!
//! Grammar: the "distribution reference" grammar; a digest is refused, because these are names to write under.

/// A text that is no image name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// The repository part is malformed.
    #[error("not an image name (want [HOST[:PORT]/]NAME[:TAG], the name in lowercase)")]
    Malformed,
    /// The tag is malformed.
    #[error("{0:?} is not a tag (letters, digits, '_', '.', '-', at most 128)")]
    Tag(String),
    /// A digest cannot be chosen.
    #[error("a name to write under has no digest")]
    Digest,
}

/// Completes a name with registry, `library/` and `:latest`.
///
/// # Errors
/// The text is not a name, or names a digest.
pub fn normalize(text: &str) -> Result<String, ReferenceError> {
    if text.contains('@') {
        return Err(ReferenceError::Digest);
    }
    let (name, tag) = match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (text, "latest"),
    };
    if !valid_tag(tag) {
        return Err(ReferenceError::Tag(tag.chars().take(140).collect()));
    }
    let (host, path) = match name.split_once('/') {
        Some((first, rest)) if is_host(first) => (first, rest.to_owned()),
        Some(_) => ("docker.io", name.to_owned()),
        None => ("docker.io", format!("library/{name}")),
    };
    let host = if host == "index.docker.io" {
        "docker.io"
    } else {
        host
    };
    let path = if host == "docker.io" && !path.contains('/') {
        format!("library/{path}")
    } else {
        path
    };
    if path.len() > 255 || !path.split('/').all(valid_component) {
        return Err(ReferenceError::Malformed);
    }
    Ok(format!("{host}/{path}:{tag}"))
}

fn is_host(first: &str) -> bool {
    first == "localhost"
        || first.contains(['.', ':'])
        || first.bytes().any(|b| b.is_ascii_uppercase())
}

fn valid_tag(tag: &str) -> bool {
    let first = tag
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    first
        && tag.len() <= 128
        && tag
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

/// Lowercase letters and digits, joined by `.`, `_`, `__` or any number of `-`.
fn valid_component(component: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = component.bytes().next().is_some_and(alphanumeric)
        && component.bytes().last().is_some_and(alphanumeric);
    let separators: Vec<&str> = component
        .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .collect();
    let joined = |separator: &&str| {
        matches!(*separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-')
    };
    ends && separators.iter().all(joined)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed() {
        let check = |text: &str, expected: &str| {
            assert_eq!(normalize(text).as_deref(), Ok(expected), "{text}")
        };
        check("app", "docker.io/library/app:latest");
        check("app:1", "docker.io/library/app:1");
        check("me/app", "docker.io/me/app:latest");
        check("docker.io/app", "docker.io/library/app:latest");
        check("localhost/app", "localhost/app:latest");
        check("localhost:5000/app", "localhost:5000/app:latest");
        check("localhost:5000/a/b:v1.2-x", "localhost:5000/a/b:v1.2-x");
        check(
            "registry.example/app__x/a--b",
            "registry.example/app__x/a--b:latest",
        );
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            ":",
            "App",
            "a//b",
            "a/",
            "-a",
            "a..b",
            "a___b",
            "a:",
            "a:-x",
            "registry.example/",
        ] {
            assert!(normalize(text).is_err(), "{text}");
        }
        assert_eq!(normalize("a@sha256:00"), Err(ReferenceError::Digest));
    }
}
