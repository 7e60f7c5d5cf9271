//! Paths as a TOC has them: relative, slash-separated bytes, the root being the empty path.
//!
//! Only text is handled here; symbolic links are followed by [`resolve`](crate::resolve).

use std::cmp::Ordering;

/// Compares component by component: a directory comes right before what it contains.
///
/// Names hold no NUL, so this is the order of the bytes with the slash below all others.
pub fn path_cmp(a: &[u8], b: &[u8]) -> Ordering {
    let at = common_length(a, b);
    match (a.get(at), b.get(at)) {
        (None, _) | (_, None) => a.len().cmp(&b.len()),
        (Some(b'/'), _) => Ordering::Less,
        (_, Some(b'/')) => Ordering::Greater,
        (x, y) => x.cmp(&y),
    }
}

/// How many bytes `a` and `b` have in common at their beginnings; found by halving, because slices are compared fast.
fn common_length(a: &[u8], b: &[u8]) -> usize {
    let shorter = a.len().min(b.len());
    if a[..shorter] == b[..shorter] {
        return shorter;
    }
    let (mut same, mut differs) = (0, shorter);
    while differs - same > 1 {
        let middle = same + (differs - same) / 2;
        if a[same..middle] == b[same..middle] {
            same = middle;
        } else {
            differs = middle;
        }
    }
    same
}

/// The components of a path; none for the root. Empty components and `.` are passed over.
pub fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
}

/// The directory that a clean path lies in, or `None` for the root.
pub fn parent(path: &[u8]) -> Option<&[u8]> {
    if path.is_empty() {
        return None;
    }
    Some(match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => &path[..slash],
        None => b"",
    })
}

/// The last component of a clean path; empty for the root.
pub fn file_name(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => &path[slash + 1..],
        None => path,
    }
}

/// `name` inside the directory `dir`. Either may be empty.
pub fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    match (dir.is_empty(), name.is_empty()) {
        (true, _) => name.to_vec(),
        (_, true) => dir.to_vec(),
        _ => [dir, b"/", name].concat(),
    }
}

/// The clean form of any path, absolute or not: no empty, `.` or `..` component, no slash at either end. `..` at the root
/// stays at the root. Purely lexical.
pub fn clean(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in components(path) {
        if part == b".." {
            parts.pop();
        } else {
            parts.push(part);
        }
    }
    parts.join(&b'/')
}

/// Whether `path` is `dir` or lies beneath it. Both are clean.
pub fn is_within(path: &[u8], dir: &[u8]) -> bool {
    path.strip_prefix(dir)
        .is_some_and(|rest| dir.is_empty() || rest.is_empty() || rest[0] == b'/')
}

/// `path` relative to the directory `dir` that it is within; empty for the directory itself.
pub fn relative<'p>(path: &'p [u8], dir: &[u8]) -> &'p [u8] {
    let rest = path.get(dir.len()..).unwrap_or_default();
    rest.strip_prefix(b"/").unwrap_or(rest)
}

/// The path as people write it: absolute, bytes that are no UTF-8 replaced.
pub fn display(path: &[u8]) -> String {
    format!("/{}", String::from_utf8_lossy(path))
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
    fn a_directory_sorts_right_before_its_contents() {
        let mut paths: Vec<&[u8]> = vec![b"a-b", b"a/b", b"a.c", b"a", b"b", b"", b"a/b/c", b"a/a"];
        paths.sort_by(|a, b| path_cmp(a, b));
        let expected: Vec<&[u8]> = vec![b"", b"a", b"a/a", b"a/b", b"a/b/c", b"a-b", b"a.c", b"b"];
        assert_eq!(paths, expected);
    }

    #[test]
    fn the_order_is_that_of_the_components() {
        let paths = [
            "",
            "a",
            "a/b",
            "a/b/c",
            "a-",
            "ab",
            "a/bc",
            "abcdefgh/x",
            "abcdefgh",
            "abcdefg/y",
            "b",
        ];
        for a in paths.map(str::as_bytes) {
            for b in paths.map(str::as_bytes) {
                assert_eq!(
                    path_cmp(a, b),
                    components(a).cmp(components(b)),
                    "{a:?} {b:?}"
                );
            }
        }
    }

    #[test]
    fn paths_are_cleaned() {
        let check = |path: &str, expected: &str| {
            assert_eq!(
                String::from_utf8_lossy(&clean(path.as_bytes())),
                expected,
                "{path}"
            );
        };
        check("/", "");
        check(".", "");
        check("/a//b/./c/", "a/b/c");
        check("../a", "a");
        check("a/../../b", "b");
    }

    #[test]
    fn parts_of_paths() {
        assert_eq!(parent(b""), None);
        assert_eq!(parent(b"a"), Some(&b""[..]));
        assert_eq!(parent(b"a/b"), Some(&b"a"[..]));
        assert_eq!(file_name(b"a/b"), b"b");
        assert_eq!(join(b"", b"a"), b"a");
        assert_eq!(join(b"a", b"b"), b"a/b");
        assert!(is_within(b"a/b", b"a") && is_within(b"a", b"a") && is_within(b"a", b""));
        assert!(!is_within(b"ab", b"a"));
        assert_eq!(relative(b"a/b", b"a"), b"b");
        assert_eq!(relative(b"a", b""), b"a");
    }
}
