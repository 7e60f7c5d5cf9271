//! What a client's stat must satisfy before it becomes an entry. Pure.

use std::cmp::Ordering;

use super::SyncLimits;
use crate::wire::Stat;

/// Compares paths component by component, as fsutil and TOCs order them: a directory comes right before what it
/// contains.
pub(crate) fn compare(left: &[u8], right: &[u8]) -> Ordering {
    left.split(|byte| *byte == b'/')
        .cmp(right.split(|byte| *byte == b'/'))
}

/// Refuses a stat that breaks the protocol or a limit. `last` is the path before it. The text names what is wrong.
pub(crate) fn check(stat: &Stat, last: Option<&[u8]>, limits: &SyncLimits) -> Result<(), String> {
    let path = &stat.path;
    let shown = || String::from_utf8_lossy(&path[..path.len().min(200)]).into_owned();
    if path.len() > limits.path_bytes || stat.linkname.len() > limits.path_bytes {
        return Err(format!(
            "path {:?} is longer than {} bytes",
            shown(),
            limits.path_bytes
        ));
    }
    let bad = |part: &[u8]| part.is_empty() || part == b"." || part == b".." || part.contains(&0);
    if path.split(|byte| *byte == b'/').any(bad) {
        return Err(format!("path {:?} is not a plain relative path", shown()));
    }
    if last.is_some_and(|last| compare(last, path) != Ordering::Less) {
        return Err(format!("path {:?} comes out of order", shown()));
    }
    if stat.size < 0 {
        return Err(format!("path {:?} has the size {}", shown(), stat.size));
    }
    let xattrs: usize = stat
        .xattrs
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    if xattrs > limits.xattr_bytes {
        return Err(format!(
            "path {:?} has {xattrs} bytes of extended attributes, at most {} are taken",
            shown(),
            limits.xattr_bytes
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(path: &[u8], last: Option<&[u8]>) -> bool {
        check(
            &Stat {
                path: path.to_vec(),
                ..Default::default()
            },
            last,
            &SyncLimits::default(),
        )
        .is_err()
    }

    #[test]
    fn plain_relative_paths_in_order_are_taken() {
        assert!(!refused(b"a", None));
        assert!(!refused(b"a/b", Some(b"a")));
        assert!(
            !refused(b"a.txt", Some(b"a/b")),
            "a directory's contents come before its longer-named siblings"
        );
        assert!(!refused(b"\xff", Some(b"a")));
    }

    #[test]
    fn other_paths_are_refused() {
        for path in [
            &b""[..],
            b"/a",
            b"a/",
            b"a//b",
            b"..",
            b"a/../b",
            b"./a",
            b"a\0b",
            &[b'x'; 5000],
        ] {
            assert!(refused(path, None), "{path:?}");
        }
        assert!(refused(b"a", Some(b"a")));
        assert!(refused(b"a/b", Some(b"a.txt")));
    }

    #[test]
    fn sizes_and_attributes_have_bounds() {
        let limits = SyncLimits {
            xattr_bytes: 10,
            ..Default::default()
        };
        let negative = Stat {
            path: b"a".to_vec(),
            size: -1,
            ..Default::default()
        };
        assert!(check(&negative, None, &limits).is_err());
        let xattrs = [("user.long".to_owned(), vec![0; 2])].into();
        assert!(
            check(
                &Stat {
                    path: b"a".to_vec(),
                    xattrs,
                    ..Default::default()
                },
                None,
                &limits
            )
            .is_err()
        );
    }
}
