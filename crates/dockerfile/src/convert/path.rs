//! Paths and sources of COPY, ADD, WORKDIR and mounts, by their text alone.

use std::iter::Peekable;
use std::str::Chars;

use crate::ignore::clean_path;

/// An absolute path without `.` and `..`, relative ones taken from `parent`. `keep_slash` keeps what says "a directory" at
/// the end: `/` and `/.`.
pub(super) fn normalize(parent: &str, path: &str, keep_slash: bool) -> String {
    let joined = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("{parent}/{path}")
    };
    let mut clean = clean_path(&format!("/{}", joined.trim_start_matches('/')));
    if keep_slash && clean != "/" {
        if path.ends_with('/') {
            clean.push('/');
        } else if path.ends_with("/.") {
            clean.push_str("/.");
        }
    }
    clean
}

/// Whether a path has characters that match others.
pub(super) fn has_wildcards(path: &str) -> bool {
    let mut chars = path.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' | '?' | '[' => return true,
            '\\' => drop(chars.next()),
            _ => {}
        }
    }
    false
}

/// Whether a path is no pattern of Go's `filepath.Match`: a class that is open or empty, a backslash at the end.
pub(super) fn is_malformed_pattern(path: &str) -> bool {
    let mut chars = path.chars().peekable();
    while let Some(c) = chars.next() {
        let malformed = match c {
            '\\' => chars.next().is_none(),
            '[' => class(&mut chars).is_none(),
            _ => false,
        };
        if malformed {
            return true;
        }
    }
    false
}

/// Reads `^a-z…]`, behind its bracket.
fn class(chars: &mut Peekable<Chars<'_>>) -> Option<()> {
    chars.next_if_eq(&'^');
    class_char(chars)?;
    loop {
        if chars.next_if_eq(&'-').is_some() {
            class_char(chars)?;
        }
        if chars.next_if_eq(&']').is_some() {
            return Some(());
        }
        class_char(chars)?;
    }
}

fn class_char(chars: &mut Peekable<Chars<'_>>) -> Option<()> {
    match chars.next()? {
        '-' | ']' => None,
        '\\' => chars.next().map(drop),
        _ => Some(()),
    }
}

/// Whether a source of ADD is a URL or a Git repository.
pub(super) fn is_remote(source: &str) -> bool {
    let scp = |text: &str| {
        let (user, rest) = text.split_once('@')?;
        let (host, _) = rest.split_once(':')?;
        let word = |text: &str| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        (word(user) && word(host)).then_some(())
    };
    ["http://", "https://", "git://", "ssh://"]
        .iter()
        .any(|scheme| source.starts_with(scheme))
        || scp(source).is_some()
}

/// Whether a remote source is a Git repository.
pub(super) fn is_git(source: &str) -> bool {
    let path = source.split(['#', '?']).next().unwrap_or_default();
    let http = source.starts_with("http://") || source.starts_with("https://");
    !http || path.ends_with(".git") || path.contains(".git/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_made_absolute() {
        let check = |parent, path, keep, expected| {
            assert_eq!(
                normalize(parent, path, keep),
                expected,
                "{parent:?} {path:?}"
            );
        };
        check("/", "a/", false, "/a");
        check("/", ".", false, "/");
        check("/", "../a", false, "/a");
        check("/w", "", false, "/w");
        check("/w", "a", true, "/w/a");
        check("/w", "./", true, "/w/");
        check("/w", "/x/", true, "/x/");
        check("/w", "/x/.", true, "/x/.");
        check("/w", "/", true, "/");
        check("/w", "../..", true, "/");
        check("/w", "//x", true, "/x");
    }

    #[test]
    fn malformed_patterns_are_found() {
        for good in ["a", "*", "[a]", "[^a-z0-9]x", "\\[a", "[\\]]", "a]"] {
            assert!(!is_malformed_pattern(good), "{good}");
        }
        for bad in [
            "miss[", "[]", "[]a]", "[^]", "[a-]", "[-a]", "x\\", "[a\\", "[a-",
        ] {
            assert!(is_malformed_pattern(bad), "{bad}");
        }
    }

    #[test]
    fn remote_sources_are_told_from_paths() {
        for source in [
            "http://a",
            "https://a/b.git",
            "git://a",
            "ssh://git@a/b",
            "git@host:a/b.git",
        ] {
            assert!(is_remote(source), "{source}");
        }
        for source in ["a", "a@b", "./a@b:c/d", "github.com/a/b", "http:/a"] {
            assert!(!is_remote(source), "{source}");
        }
    }
}
