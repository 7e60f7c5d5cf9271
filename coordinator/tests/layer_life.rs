//! How often the bytes of a layer are read and written in its whole life: captured, encoded, opened for a push.
//!
//! In a program of its own, whose only test it is: the kernel counts what a process reads and writes.

use std::collections::HashMap;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use buildyard_cas::{
    BlobInfo, BlobReader, BlobStore, BlobWriter, CasError, DiskBlobs, Durability, Verified, WHOLE,
    open_disk,
};
use buildyard_coordinator::export::{LayerBlob, LayerBlobs};
use buildyard_coordinator::layers::{ExportLayers, LayerStore, Origins};
use buildyard_image::{Compression, CompressionKind};
use buildyard_layer::{BLOCK, FlatFiles, Toc, Tree, capture};
use buildyard_model::Digest;
use buildyard_registry::{NoAuth, Registry, RegistryConfig};
use buildyard_store::{SqliteStore, UnixMillis};
use futures::StreamExt;
use futures::stream::BoxStream;

/// The layer's files: so many, of so many bytes that no compressor makes fewer.
const FILES: usize = 32;
const SIZE: usize = 1 << 19;
const ALL: u64 = (FILES * SIZE) as u64;
/// Headers, tables, directories, records.
const SMALL: u64 = 1 << 20;
const GZIP: Compression = Compression {
    kind: CompressionKind::Gzip,
    level: None,
};

/// Bytes that this process has read and written so far (proc(5), `rchar` and `wchar`).
fn moved() -> (u64, u64) {
    let text = fs::read_to_string("/proc/self/io").expect("the kernel counts");
    let value = |name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|value| value.trim().parse().ok())
            .expect("a number")
    };
    (value("rchar:"), value("wchar:"))
}

/// What moves while `act` runs is so many times the layer's bytes, and nothing of the size of a block more.
async fn moves<T>(what: &str, reads: u64, writes: u64, act: impl Future<Output = T>) -> T {
    let before = moved();
    let done = act.await;
    let after = moved();
    let (read, written) = (after.0 - before.0, after.1 - before.1);
    for (moved, times) in [(read, reads), (written, writes)] {
        let expected = times * ALL..times * ALL + SMALL;
        assert!(
            expected.contains(&moved),
            "{what}: {read} read, {written} written, of {ALL}"
        );
    }
    done
}

/// The blobs, and how often a part of one was opened.
#[derive(Debug)]
struct Counted {
    blobs: Verified<DiskBlobs>,
    parts: AtomicUsize,
}

#[async_trait]
impl BlobStore for Counted {
    async fn stat(&self, digest: Digest) -> Result<Option<u64>, CasError> {
        self.blobs.stat(digest).await
    }

    async fn open(
        &self,
        digest: Digest,
        range: Range<u64>,
    ) -> Result<Option<BlobReader>, CasError> {
        if range != WHOLE {
            self.parts.fetch_add(1, Ordering::SeqCst);
        }
        self.blobs.open(digest, range).await
    }

    async fn writer(&self) -> Result<Box<dyn BlobWriter>, CasError> {
        self.blobs.writer().await
    }

    async fn delete(&self, digest: Digest) -> Result<bool, CasError> {
        self.blobs.delete(digest).await
    }

    fn list(&self) -> BoxStream<'_, Result<BlobInfo, CasError>> {
        self.blobs.list()
    }
}

/// Bytes that follow from `seed` and look like nothing (xorshift).
fn noise(seed: usize) -> Vec<u8> {
    let mut state = seed as u64 + 1;
    let words = (0..SIZE / 8).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes()
    });
    words.collect()
}

fn captured(upper: &Path, flats: &FlatFiles) -> Arc<Toc> {
    let captured = capture(upper, &Tree::empty(), &[], flats, 2).expect("captured");
    Arc::new(captured.toc)
}

/// Records the layer and encodes it.
async fn described(layers: &Arc<LayerStore>, toc: Arc<Toc>) -> (ExportLayers, LayerBlob) {
    let recorded = layers.put_own(toc, UnixMillis::from(std::time::SystemTime::now()));
    let id = recorded.await.expect("recorded");
    let registry = Registry::new(RegistryConfig::default(), Arc::new(NoAuth));
    let origins = Origins::new(Arc::new(registry), HashMap::new());
    let export = ExportLayers::new(layers.clone(), origins);
    let blob = export.describe(id, GZIP, false).await.expect("encoded");
    (export, blob)
}

async fn drain(export: &ExportLayers, blob: &LayerBlob) -> u64 {
    let mut stream = export.open(blob).await.expect("it is there");
    let mut bytes = 0;
    while let Some(piece) = stream.next().await {
        bytes += piece.expect("it is right").len() as u64;
    }
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layers_bytes_are_read_three_times_and_written_twice() {
    let dir = tempfile::tempdir().expect("a folder");
    let upper = dir.path().join("upper");
    fs::create_dir(&upper).expect("made");
    for file in 0..FILES {
        fs::write(upper.join(format!("f{file:03}")), noise(file)).expect("written");
    }
    let flats = FlatFiles::new(dir.path().join("flats")).expect("opened");
    let blobs = open_disk(dir.path(), Durability::Synced).await;
    let blobs = Arc::new(Counted {
        blobs: blobs.expect("opened"),
        parts: AtomicUsize::new(0),
    });
    let store = Arc::new(SqliteStore::in_memory().await.expect("opened"));
    let layers = Arc::new(LayerStore::new(store, blobs.clone(), flats.clone()));

    // Read where the step left them, hashed, and written to the flat file.
    let toc = moves("captured", 1, 1, async { captured(&upper, &flats) }).await;
    // Read there, hashed, compressed, and written to the blob.
    let (export, blob) = moves("encoded", 1, 1, described(&layers, toc)).await;
    // The table of contents lasts: its file and its directory. The encoding can be made again.
    assert_eq!(blobs.blobs.inner().syncs(), 2);
    // An archive's proof reads nothing, as the blob was just made.
    moves("proven", 0, 0, async {
        export.prove(&blob).await.expect("there")
    })
    .await;
    let sent = moves("pushed", 1, 0, drain(&export, &blob)).await;
    assert_eq!(sent, blob.descriptor.size);

    // One file is another: all blocks but those around it are taken over, and what comes out is what it would be without.
    fs::write(upper.join("f015"), noise(1000)).expect("written");
    let before = blobs.parts.load(Ordering::SeqCst);
    let (export, blob) = described(&layers, captured(&upper, &flats)).await;
    let taken = blobs.parts.load(Ordering::SeqCst) - before;
    assert!(
        taken >= FILES * SIZE / BLOCK - 2,
        "{taken} blocks were taken over"
    );
    let toc = layers.toc(blob.layer).await.expect("readable");
    let toc = toc.expect("recorded");
    let encoding = buildyard_layer::Encoding::GZIP;
    let anew = buildyard_layer::encode(&toc, &flats, encoding, 2, &mut std::io::sink());
    assert_eq!(anew.expect("encoded").digest, blob.descriptor.digest);
    assert_eq!(drain(&export, &blob).await, blob.descriptor.size);
}
