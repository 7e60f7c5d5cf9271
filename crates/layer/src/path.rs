//! Paths as bytes, relative to a layer's root and separated by `/`.
//!
//! Everything here is a pure function of bytes; nothing follows a symbolic link.

use std::cmp::Ordering;

/// Orders paths component by component: a directory comes before what it contains, and everything under a directory
/// stands together. This is the order of [`Toc::entries`](crate::Toc::entries).
///
/// It is the order of the bytes with `/` below every other byte, because no path has a NUL.
pub fn path_cmp(a: &[u8], b: &[u8]) -> Ordering {
    let differs = a.iter().zip(b).position(|(x, y)| x != y);
    match differs {
        None => a.len().cmp(&b.len()),
        Some(i) => match (a[i], b[i]) {
            (b'/', _) => Ordering::Less,
            (_, b'/') => Ordering::Greater,
            (x, y) => x.cmp(&y),
        },
    }
}

/// The names along `path`, without empty ones.
pub fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|b| *b == b'/').filter(|name| !name.is_empty())
}

/// The directory that contains `path`: the empty path for names at the top, `None` for the root itself.
pub fn parent(path: &[u8]) -> Option<&[u8]> {
    if path.is_empty() {
        return None;
    }
    let slash = path.iter().rposition(|b| *b == b'/').unwrap_or(0);
    Some(&path[..slash])
}

/// The last name of `path`; empty for the root.
pub fn file_name(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => &path[slash + 1..],
        None => path,
    }
}

/// `name` inside `directory`; the empty directory is the root.
pub fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() {
        return name.to_vec();
    }
    [directory, b"/", name].concat()
}

/// Whether `path` is `directory` or lies under it. Everything lies under the root.
pub fn is_under(path: &[u8], directory: &[u8]) -> bool {
    match path.strip_prefix(directory) {
        Some(rest) => directory.is_empty() || rest.is_empty() || rest[0] == b'/',
        None => false,
    }
}

/// `path` as seen from the root it is inside of: leading slashes, `.` and empty names go, `..` goes up and stops at
/// the root. This is how a layer's paths are read.
pub fn clean(path: &[u8]) -> Vec<u8> {
    let mut names: Vec<&[u8]> = Vec::new();
    for name in components(path) {
        match name {
            b"." => {}
            b".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    names.join(&b'/')
}

/// Like [`clean`], but `None` where the path is absolute or leads above its root.
pub fn clean_inside(path: &[u8]) -> Option<Vec<u8>> {
    if path.first() == Some(&b'/') {
        return None;
    }
    let mut depth = 0usize;
    for name in components(path) {
        match name {
            b"." => {}
            b".." => depth = depth.checked_sub(1)?,
            _ => depth += 1,
        }
    }
    Some(clean(path))
}

/// Whether `path` may stand in a TOC: relative, no empty, `.` or `..` name, no NUL. The root is the empty path.
pub(crate) fn is_canonical(path: &[u8]) -> bool {
    if path.is_empty() {
        return true;
    }
    let good = |name: &[u8]| !matches!(name, b"" | b"." | b"..") && !name.contains(&0);
    path.split(|b| *b == b'/').all(good)
}

/// A path as text for messages: what is not UTF-8 is shown escaped, long paths are cut.
pub(crate) fn show(path: &[u8]) -> String {
    const SHOWN: usize = 300;
    let cut = &path[..path.len().min(SHOWN)];
    let dots = if path.len() > SHOWN { "…" } else { "" };
    format!("{}{dots}", cut.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cleaning_stays_inside_the_root() {
        let check = |input: &str, cleaned: &str, inside: Option<&str>| {
            assert_eq!(clean(input.as_bytes()), cleaned.as_bytes(), "{input}");
            assert_eq!(
                clean_inside(input.as_bytes()).as_deref(),
                inside.map(str::as_bytes),
                "{input}"
            );
        };
        check("", "", Some(""));
        check("./", "", Some(""));
        check("./a//b/", "a/b", Some("a/b"));
        check("a/../b", "b", Some("b"));
        check("/etc/passwd", "etc/passwd", None);
        check("../../etc", "etc", None);
        check("a/../../b", "b", None);
        check("..a/.b", "..a/.b", Some("..a/.b"));
    }

    #[test]
    fn parents_and_names() {
        let check = |path: &str, up: Option<&str>, name: &str| {
            assert_eq!(parent(path.as_bytes()), up.map(str::as_bytes), "{path}");
            assert_eq!(file_name(path.as_bytes()), name.as_bytes(), "{path}");
        };
        check("", None, "");
        check("a", Some(""), "a");
        check("a/b/c", Some("a/b"), "c");
        assert!(is_under(b"a/b", b"a") && is_under(b"a", b"a") && is_under(b"a", b""));
        assert!(!is_under(b"ab", b"a") && !is_under(b"a", b"a/b"));
    }

    proptest! {
        #[test]
        fn the_order_is_that_of_components(a in "[a!/.]{0,8}", b in "[a!/.]{0,8}") {
            let (a, b) = (clean(a.as_bytes()), clean(b.as_bytes()));
            let wanted = components(&a).collect::<Vec<_>>().cmp(&components(&b).collect::<Vec<_>>());
            prop_assert_eq!(path_cmp(&a, &b), wanted);
        }
    }
}
