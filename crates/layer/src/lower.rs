//! What a layer lies on.

use buildyard_model::FlatId;

use crate::assemble::bare;
use crate::path::{is_within, path_cmp};
use crate::{Entry, Kind, Toc};

/// The merged view of everything below a layer: what a path is there, with hard links and whiteouts resolved.
pub trait Lower: Sync {
    /// What is at `path` (the empty path is the root); `None` where nothing is. Never a whiteout or a `LinkBelow`. A
    /// directory that no layer lists, but that something lies in, is there too.
    fn entry(&self, path: &[u8]) -> Option<Entry>;

    /// The flat files that the extents of these entries refer to by index.
    fn flats(&self) -> &[FlatId];
}

/// A single layer as the whole lower side; [`Toc::default`] is an empty one.
impl Lower for Toc {
    fn entry(&self, path: &[u8]) -> Option<Entry> {
        match self.entries.binary_search_by(|e| path_cmp(&e.path, path)) {
            Ok(at) => Some(self.entries[at].clone()),
            Err(next) => {
                let under = |e: &Entry| !path.is_empty() && is_within(&e.path, path);
                let implied = self.entries.get(next).is_some_and(under);
                implied.then(|| bare(path.to_vec(), Kind::Directory { opaque: false }, 0o755))
            }
        }
    }

    fn flats(&self) -> &[FlatId] {
        &self.flats
    }
}
