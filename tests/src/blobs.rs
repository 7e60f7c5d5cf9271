//! The blobs that a coordinator keeps, as files.

use std::path::{Path, PathBuf};

use crate::Server;

impl Server {
    /// Every blob of its store.
    pub fn blobs(&self) -> Vec<PathBuf> {
        files(&self.data().join("blobs"))
    }

    /// How many of its blobs are compressed by gzip: layers as registries want them.
    pub fn gzip_blobs(&self) -> usize {
        let blobs = self.blobs().into_iter();
        // One that is gone since is not kept.
        let read = blobs.filter_map(|path| std::fs::read(path).ok());
        read.filter(|bytes| is_gzip(bytes)).count()
    }
}

/// Whether these bytes are compressed by gzip.
pub fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x1f, 0x8b])
}

/// Every file below a folder.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a folder").flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found
}
