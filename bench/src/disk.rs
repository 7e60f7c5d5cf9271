//! How much of the disk a folder takes.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The unit of `st_blocks` (stat(2)).
const BLOCK: u64 = 512;

/// Bytes that the files below `dir` take on its file system: each inode once, nothing of what is mounted there.
pub(crate) fn taken(dir: &Path) -> std::io::Result<u64> {
    let device = fs::symlink_metadata(dir)?.dev();
    let mut seen = BTreeSet::new();
    let mut pending = vec![dir.to_owned()];
    let mut blocks = 0;
    while let Some(path) = pending.pop() {
        // What an engine removes while this looks counts as removed.
        let Ok(meta) = fs::symlink_metadata(&path) else {
            continue;
        };
        if meta.dev() != device || !seen.insert(meta.ino()) {
            continue;
        }
        blocks += meta.blocks();
        if meta.is_dir() {
            let entries = fs::read_dir(&path).into_iter().flatten().flatten();
            pending.extend(entries.map(|entry| entry.path()));
        }
    }
    Ok(blocks * BLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hard_links_and_holes_take_nothing() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("a/b");
        fs::create_dir(dir.path().join("a")).expect("made");
        let empty = taken(dir.path()).expect("counted");
        fs::write(&file, vec![1; 100_000]).expect("written");
        fs::hard_link(&file, dir.path().join("c")).expect("linked");
        // ext4 gives a file its blocks when it is written back.
        let written = fs::File::open(&file).expect("opened");
        written.sync_all().expect("written back");
        let hole = fs::File::create(dir.path().join("hole")).expect("made");
        hole.set_len(10_000_000).expect("grown");
        let full = taken(dir.path()).expect("counted") - empty;
        assert!((100_000..1_000_000).contains(&full), "{full}");
    }
}
