//! A few small files of the client, taken into memory: the Dockerfile and ignore files. Nothing of them is stored.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, MutexGuard};

use buildyard_layer::{Extent, ExtentSource, FileReader, Follow, Kind, Tree};
use buildyard_model::{Digest, FlatId};
use buildyard_session::{Pack, PackError, SyncLimits, SyncRequest};

use super::internal_step::transferring;
use crate::backend::{Build, BuildError};

/// Largest of these files in bytes.
const FILE_BYTES: usize = 4 << 20;
/// All of one transfer together.
const ALL_BYTES: usize = 4 * FILE_BYTES;
/// Paths of one transfer: the files, the folders they lie in, and what links in them lead to.
const MOST_ENTRIES: usize = 10_000;

/// Files of one of the client's directories.
pub(super) struct SmallFiles {
    tree: Tree,
    bytes: Memory,
}

impl SmallFiles {
    /// Takes these paths of the directory `dir`, and what symbolic links in them lead to. They show as `what` of a step.
    pub(super) async fn take(
        build: &Build,
        (step, what): (Digest, &str),
        dir: &str,
        paths: Vec<String>,
    ) -> Result<Self, BuildError> {
        let bytes = Memory::default();
        let request = SyncRequest {
            dir_name: dir.to_owned(),
            follow_paths: paths,
            progress: Some(transferring(build, step, what)),
            limits: SyncLimits {
                entries: MOST_ENTRIES,
                bytes: ALL_BYTES as u64,
                ..SyncLimits::default()
            },
            ..SyncRequest::default()
        };
        let pack = Box::new(bytes.clone());
        let toc = build.session.sync_dir(request, pack).await?.toc;
        let tree = Tree::merge(&[Arc::new(toc)]);
        Ok(Self { tree, bytes })
    }

    /// The content of a file; `None` where it is not there or is no file.
    pub(super) fn read(&self, path: &str) -> Result<Option<Vec<u8>>, BuildError> {
        let clean = buildyard_layer::path::clean(path.as_bytes());
        let Ok(found) = self.tree.resolve(&clean, Follow::All) else {
            return Ok(None);
        };
        let Some(node) = self.tree.get(&found) else {
            return Ok(None);
        };
        let Kind::File { size, .. } = node.entry.kind else {
            return Ok(None);
        };
        if size > FILE_BYTES as u64 {
            return Err(BuildError::failed(format!(
                "{path} is larger than {FILE_BYTES} bytes"
            )));
        }
        let extents: Vec<Extent> = node.extents().map(|(_, extent)| extent).collect();
        let mut content = Vec::new();
        FileReader::new(&self.bytes, node.flats, size, &extents)
            .read_to_end(&mut content)
            .map_err(super::internal)?;
        Ok(Some(content))
    }
}

/// A pack in memory.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Memory {
    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().expect("nobody panics while holding it")
    }
}

impl Pack for Memory {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), PackError> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(bytes.len());
        if end > ALL_BYTES {
            return Err(PackError(format!(
                "the Dockerfile and its ignore file are larger than {ALL_BYTES} bytes"
            )));
        }
        let mut kept = self.lock();
        if kept.len() < end {
            kept.resize(end, 0);
        }
        kept[start..end].copy_from_slice(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>, _length: u64) -> Result<FlatId, PackError> {
        Ok(FlatId::from_bytes([0; 32]))
    }
}

impl ExtentSource for Memory {
    fn read_at(&self, _flat: FlatId, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let kept = self.lock();
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = kept
            .get(start..)
            .and_then(|rest| rest.get(..buf.len()))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pack_in_memory_is_read_back_and_bounded() {
        let mut memory = Memory::default();
        memory.write_at(512, b"later").unwrap();
        memory.write_at(0, b"first").unwrap();
        let mut read = [0; 5];
        memory
            .read_at(FlatId::from_bytes([0; 32]), 512, &mut read)
            .unwrap();
        assert_eq!(&read, b"later");
        assert!(memory.write_at(ALL_BYTES as u64, b"x").is_err());
        assert!(
            memory
                .read_at(FlatId::from_bytes([0; 32]), 515, &mut read)
                .is_err()
        );
    }
}
