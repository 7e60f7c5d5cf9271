//! Ignore files: `.dockerignore` and `<Dockerfile>.dockerignore`.
//!
//! Only reads the patterns. What they match is for whoever walks the context.

use std::path::{Component, Path};

/// Reads ignore files.
#[derive(Debug, Clone, Copy)]
pub struct Dockerignore;

impl Dockerignore {
    /// The patterns of an ignore file, in their order, in the form in which moby's `ignorefile.ReadAll` gives them to
    /// clients: comments and empty lines dropped, blanks trimmed, paths cleaned, a leading slash removed, `!` kept.
    pub fn parse(bytes: &[u8]) -> Vec<String> {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        String::from_utf8_lossy(bytes)
            .split('\n')
            .filter_map(pattern)
            .collect()
    }
}

fn pattern(line: &str) -> Option<String> {
    if line.starts_with('#') {
        return None;
    }
    let line = line.trim();
    if line.is_empty() {
        return None;
    }
    let (sign, path) = match line.strip_prefix('!') {
        Some(rest) => ("!", rest.trim()),
        None => ("", line),
    };
    if path.is_empty() {
        return Some(sign.to_owned());
    }
    let clean = clean_path(path);
    let relative = if clean.len() > 1 {
        clean.strip_prefix('/').unwrap_or(&clean)
    } else {
        &clean
    };
    Some(format!("{sign}{relative}"))
}

/// The shortest path that means the same, by its text alone (Go's `path.Clean`).
pub(crate) fn clean_path(path: &str) -> String {
    let absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for component in Path::new(path).components() {
        match component {
            Component::ParentDir if parts.last().is_some_and(|&last| last != "..") => {
                parts.pop();
            }
            Component::ParentDir if !absolute => parts.push(".."),
            Component::Normal(name) => parts.push(name.to_str().unwrap_or_default()),
            _ => {}
        }
    }
    match (absolute, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_read_as_clients_expect() {
        let file = "\u{feff}# comment\n  *.o  \n\n!/keep\n! spaced \n/a//b/../c/\n #not a comment\n.\n/\n!\nlast\r\n..";
        let expected = [
            "*.o",
            "!keep",
            "!spaced",
            "a/c",
            "#not a comment",
            ".",
            "/",
            "!",
            "last",
            "..",
        ];
        assert_eq!(Dockerignore::parse(file.as_bytes()), expected);
        assert!(Dockerignore::parse(b"").is_empty());
    }

    #[test]
    fn paths_are_cleaned() {
        let check = |path, expected| assert_eq!(clean_path(path), expected, "{path:?}");
        check("", ".");
        check("./a/./b/", "a/b");
        check("a/../..", "..");
        check("/..", "/");
        check("/a/../../b", "/b");
        check("//a", "/a");
    }
}
