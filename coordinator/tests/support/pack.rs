//! Packs in memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use buildyard_layer::{Kind, Toc};
use buildyard_model::FlatId;
use buildyard_session::{Pack, PackError};

/// Finished packs by name.
#[derive(Clone, Default)]
pub(crate) struct Packs(Arc<Mutex<HashMap<FlatId, Vec<u8>>>>);

impl Packs {
    pub(crate) fn create(&self) -> Box<dyn Pack> {
        Box::new(MemoryPack {
            packs: self.clone(),
            bytes: Vec::new(),
        })
    }

    /// The content of a file of `toc`; `None` where there is no such file.
    pub(crate) fn content(&self, toc: &Toc, path: &[u8]) -> Option<Vec<u8>> {
        let entry = toc.entries.iter().find(|entry| entry.path == path)?;
        let Kind::File { size, extents, .. } = &entry.kind else {
            return None;
        };
        let packs = self.0.lock().expect("no test panics while it holds this");
        let mut content = vec![0; *size as usize];
        for extent in extents {
            let flat = &packs[&toc.flats[extent.flat as usize]];
            let from = &flat[extent.offset as usize..][..extent.length as usize];
            content[extent.at as usize..][..from.len()].copy_from_slice(from);
        }
        Some(content)
    }
}

struct MemoryPack {
    packs: Packs,
    bytes: Vec<u8>,
}

impl Pack for MemoryPack {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), PackError> {
        let end = offset as usize + bytes.len();
        self.bytes.resize(self.bytes.len().max(end), 0);
        self.bytes[offset as usize..end].copy_from_slice(bytes);
        Ok(())
    }

    fn finish(mut self: Box<Self>, length: u64) -> Result<FlatId, PackError> {
        self.bytes.resize(length as usize, 0);
        let id = FlatId::from_bytes(rand::random());
        self.packs
            .0
            .lock()
            .expect("no test panics while it holds this")
            .insert(id, self.bytes);
        Ok(id)
    }
}
