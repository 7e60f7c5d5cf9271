//! Whether a flat file is still the one whose bytes somebody has checked.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use serde::{Deserialize, Serialize};

/// What tells a flat file on this machine from another one, or from itself with other bytes, without reading it. A whole
/// file is never written to once it has its name, so any change shows in its length or its time of change. A sparse copy grows
/// as ranges are fetched; it is told by its inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    inode: u64,
    length: u64,
    /// Seconds and nanoseconds of the last change of a whole file.
    changed: Option<(i64, i64)>,
}

impl Stamp {
    /// That of an open file, or of one that was looked up.
    pub fn of(file: &Metadata, sparse: bool) -> Self {
        Self {
            inode: file.ino(),
            length: file.len(),
            changed: (!sparse).then(|| (file.ctime(), file.ctime_nsec())),
        }
    }

    /// Whether a file that has the stamp `now` still has all bytes that it had with this one.
    pub fn holds(&self, now: &Self) -> bool {
        match self.changed {
            Some(_) => self == now,
            None => self.inode == now.inode && now.changed.is_none() && self.length <= now.length,
        }
    }

    /// Whether only parts of the flat file may be here.
    pub fn is_sparse(&self) -> bool {
        self.changed.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_change_of_a_whole_file_shows_and_a_sparse_one_may_grow() {
        let stamp = |inode, length, changed| Stamp {
            inode,
            length,
            changed,
        };
        let check = |before: Stamp, now: Stamp, same: bool| {
            assert_eq!(before.holds(&now), same, "{before:?} {now:?}");
        };
        let whole = stamp(1, 512, Some((5, 0)));
        check(whole, whole, true);
        check(whole, stamp(1, 512, Some((5, 1))), false);
        check(whole, stamp(1, 1024, Some((5, 0))), false);
        check(whole, stamp(2, 512, Some((5, 0))), false);
        check(whole, stamp(1, 512, None), false);
        let sparse = stamp(1, 512, None);
        check(sparse, stamp(1, 1024, None), true);
        check(sparse, stamp(1, 511, None), false);
        check(sparse, stamp(2, 512, None), false);
        check(sparse, whole, false);
    }
}
