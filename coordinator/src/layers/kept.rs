//! What blocks of layers were compressed to, for layers that have most of them in common with one that was encoded before: a
//! context after an edit.
//!
//! Only where they lie is kept, and in memory only: what is not found is compressed. Who takes one checks it.

use std::sync::{Arc, Mutex, MutexGuard};

use buildyard_cas::BlobStore;
use buildyard_layer::{BLOCK, Encoding, Made, Mark, Reuse};
use buildyard_model::Digest;
use lru::LruCache;
use tokio::io::AsyncReadExt;
use tokio::runtime::Handle;

/// How many are kept: about 12 GB of layers, in less than 3 MB of memory.
const BLOCKS: usize = 16 * 1024;

/// Where blocks lie that were compressed last.
pub(super) struct KeptBlocks(Mutex<LruCache<(Encoding, Mark), Place>>);

#[derive(Debug, Clone, Copy)]
struct Place {
    blob: Digest,
    offset: u64,
    length: u64,
}

impl Default for KeptBlocks {
    fn default() -> Self {
        // Takes no memory before there are some.
        Self(Mutex::new(LruCache::unbounded()))
    }
}

impl KeptBlocks {
    /// Remembers what `blob` consists of.
    pub(super) fn keep(&self, encoding: Encoding, blob: Digest, blocks: &[Made]) {
        let mut kept = self.lock();
        for made in blocks {
            let place = Place {
                blob,
                offset: made.offset,
                length: made.length,
            };
            kept.put((encoding, made.mark), place);
        }
        while kept.len() > BLOCKS {
            kept.pop_lru();
        }
    }

    fn place(&self, encoding: Encoding, mark: Mark) -> Option<Place> {
        self.lock().get(&(encoding, mark)).copied()
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<(Encoding, Mark), Place>> {
        self.0.lock().expect("nobody panics while holding it")
    }
}

/// The kept blocks of one encoding, and where their bytes are. Made inside of the runtime, used on threads that may block.
pub(super) struct Earlier {
    pub(super) kept: Arc<KeptBlocks>,
    pub(super) blobs: Arc<dyn BlobStore>,
    pub(super) encoding: Encoding,
    pub(super) runtime: Handle,
}

impl Earlier {
    async fn read(&self, place: Place) -> Option<Vec<u8>> {
        let range = place.offset..place.offset + place.length;
        let mut reader = self.blobs.open(place.blob, range).await.ok()??;
        let mut bytes = Vec::with_capacity(reader.length().min(BLOCK as u64) as usize);
        reader.read_to_end(&mut bytes).await.ok()?;
        Some(bytes)
    }
}

impl Reuse for Earlier {
    fn find(&self, mark: Mark) -> Option<Vec<u8>> {
        let place = self.kept.place(self.encoding, mark)?;
        self.runtime.block_on(self.read(place))
    }
}
