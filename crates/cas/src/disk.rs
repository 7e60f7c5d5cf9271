//! Blobs as files of a directory:
//!
//! ```text
//! DIR/blobs/sha256/ab/abcdef…     one file per blob, sharded by its first two digits
//! DIR/tmp/…                       what is being written; emptied when the store is opened
//! ```
//!
//! A blob comes into being by a rename, so what lies under a blob's name was written completely. Whether it also
//! survives a crash of the machine is a matter of [`Durability`]. Nothing here checks what is read: [`Verified`] does.

mod writer;

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use buildyard_model::Digest;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use crate::read::clip;
use crate::{BlobInfo, BlobReader, BlobStore, BlobWriter, CasError, Verified};
use writer::DiskWriter;

/// Whether a commit waits for the disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Durability {
    /// A committed blob survives a power failure. For what other machines rely on.
    #[default]
    Synced,
    /// A crash of the machine may leave blobs empty or short; read whole through [`Verified`] they are misses. Much
    /// faster for many small blobs; for caches that can be filled again.
    Lazy,
}

/// Blobs in a directory. Clones share it.
#[derive(Debug, Clone)]
pub struct DiskBlobs {
    layout: Arc<Layout>,
}

/// The blobs of a data directory as everybody should use them: on disk, checked when read.
pub async fn open_disk(
    dir: &Path,
    durability: Durability,
) -> Result<Verified<DiskBlobs>, CasError> {
    Ok(Verified::new(DiskBlobs::open(dir, durability).await?))
}

impl DiskBlobs {
    /// Opens or makes the store in `dir`, and removes what an earlier process left unfinished there. The caller holds
    /// the directory's lock ([`crate::lock_data_dir`]) and opens it once: another opening would remove what this one
    /// is writing.
    pub async fn open(dir: &Path, durability: Durability) -> Result<Self, CasError> {
        let dir = dir.to_owned();
        let layout = blocking(move || Layout::prepare(dir, durability)).await?;
        Ok(Self {
            layout: Arc::new(layout),
        })
    }

    /// How often somebody waited for the disk since the store was opened: twice for each blob that has to last (and once for
    /// each new directory, which is not counted).
    pub fn syncs(&self) -> u64 {
        self.layout.syncs.load(Ordering::Relaxed)
    }

    /// Where the blob's file is or would be.
    pub fn path_of(&self, digest: Digest) -> PathBuf {
        self.layout.path_of(digest)
    }
}

#[async_trait]
impl BlobStore for DiskBlobs {
    async fn stat(&self, digest: Digest) -> Result<Option<u64>, CasError> {
        let path = self.path_of(digest);
        let size = tokio::fs::metadata(&path)
            .await
            .map(|metadata| metadata.len());
        present(size, "looking for a blob at", &path)
    }

    async fn open(
        &self,
        digest: Digest,
        range: Range<u64>,
    ) -> Result<Option<BlobReader>, CasError> {
        let path = self.path_of(digest);
        let file = tokio::fs::File::open(&path).await;
        let Some(mut file) = present(file, "opening a blob at", &path)? else {
            return Ok(None);
        };
        let failed = |error| CasError::io("opening a blob at", &path, error);
        let size = file.metadata().await.map_err(failed)?.len();
        let (start, length) = clip(&range, size);
        if start > 0 {
            file.seek(io::SeekFrom::Start(start))
                .await
                .map_err(failed)?;
        }
        Ok(Some(BlobReader::new(size, length, file.take(length))))
    }

    async fn writer(&self) -> Result<Box<dyn BlobWriter>, CasError> {
        let layout = self.layout.clone();
        let writer = blocking(move || DiskWriter::begin(layout)).await?;
        Ok(Box::new(writer))
    }

    async fn delete(&self, digest: Digest) -> Result<bool, CasError> {
        let path = self.path_of(digest);
        let removed = tokio::fs::remove_file(&path).await;
        Ok(present(removed, "removing a blob at", &path)?.is_some())
    }

    fn list(&self) -> BoxStream<'_, Result<BlobInfo, CasError>> {
        let shards = (0..=255u8).map(move |shard| {
            let layout = self.layout.clone();
            async move {
                let blobs = blocking(move || layout.list_shard(shard)).await?;
                Ok::<_, CasError>(stream::iter(blobs).map(Ok))
            }
        });
        stream::iter(shards)
            .then(|shard| shard)
            .try_flatten()
            .boxed()
    }
}

/// What is not there is `None`.
fn present<T>(
    result: io::Result<T>,
    doing: &'static str,
    path: &Path,
) -> Result<Option<T>, CasError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CasError::io(doing, path, error)),
    }
}

/// Runs file operations on a thread that may wait for them.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CasError> + Send + 'static,
) -> Result<T, CasError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(CasError::io(
            "working on blobs in",
            "a thread",
            io::Error::other(error),
        )),
    }
}

/// The directories.
#[derive(Debug)]
struct Layout {
    blobs: PathBuf,
    tmp: PathBuf,
    durability: Durability,
    /// How often the disk was waited for.
    syncs: AtomicU64,
}

impl Layout {
    fn prepare(dir: PathBuf, durability: Durability) -> Result<Self, CasError> {
        let layout = Self {
            blobs: dir.join("blobs/sha256"),
            tmp: dir.join("tmp"),
            durability,
            syncs: AtomicU64::new(0),
        };
        match std::fs::remove_dir_all(&layout.tmp) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(CasError::io(
                    "removing unfinished blobs in",
                    &layout.tmp,
                    error,
                ));
            }
            _ => {}
        }
        for made in [&layout.blobs, &layout.tmp] {
            std::fs::create_dir_all(made)
                .map_err(|error| CasError::io("making the directory", made, error))?;
        }
        Ok(layout)
    }

    fn path_of(&self, digest: Digest) -> PathBuf {
        let hex = digest.hex();
        self.blobs.join(&hex[..2]).join(&hex)
    }

    /// The blobs whose digests begin with `shard`. Files with other names are none of ours.
    fn list_shard(&self, shard: u8) -> Result<Vec<BlobInfo>, CasError> {
        let dir = self.blobs.join(format!("{shard:02x}"));
        let failed = |error| CasError::io("listing the blobs in", &dir, error);
        let mut blobs = Vec::new();
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            // Made with its first blob.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(blobs),
            Err(error) => return Err(failed(error)),
        };
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let Ok(digest) = format!("sha256:{}", name.to_string_lossy()).parse() else {
                continue;
            };
            match entry.metadata() {
                Ok(metadata) => blobs.push(BlobInfo {
                    digest,
                    size: metadata.len(),
                }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(blobs)
    }
}
