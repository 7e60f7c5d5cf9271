//! Writing one blob: hashed and written on a blocking thread, chunk by chunk, then renamed into its place.

use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use buildyard_model::Digest;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use super::{Durability, Layout, blocking};
use crate::{BlobInfo, BlobWriter, CasError};

/// Small chunks are gathered up to this size: a trip to another thread costs more than copying them.
const GATHER: usize = 256 << 10;

/// A blob on its way. The file is removed when this is dropped.
pub(super) struct DiskWriter {
    layout: Arc<Layout>,
    durability: Durability,
    gathered: Vec<u8>,
    /// `None` while a thread has it, so for good after a failed or abandoned write.
    open: Option<Open>,
}

struct Open {
    file: NamedTempFile,
    hasher: Sha256,
    size: u64,
}

impl Open {
    fn append(&mut self, chunk: &[u8]) -> Result<(), CasError> {
        self.file
            .write_all(chunk)
            .map_err(|error| CasError::io("writing a blob to", self.file.path(), error))?;
        self.hasher.update(chunk);
        self.size += chunk.len() as u64;
        Ok(())
    }
}

impl DiskWriter {
    pub(super) fn begin(layout: Arc<Layout>) -> Result<Self, CasError> {
        let file = tempfile::Builder::new()
            .prefix("")
            .permissions(std::fs::Permissions::from_mode(0o644))
            .tempfile_in(&layout.tmp)
            .map_err(|error| CasError::io("making a file in", &layout.tmp, error))?;
        let open = Open {
            file,
            hasher: Sha256::new(),
            size: 0,
        };
        Ok(Self {
            durability: layout.durability,
            layout,
            gathered: Vec::new(),
            open: Some(open),
        })
    }

    async fn append(&mut self, chunk: Bytes) -> Result<(), CasError> {
        let mut open = self.open.take().ok_or(CasError::Abandoned)?;
        let open = blocking(move || open.append(&chunk).map(|()| open)).await?;
        self.open = Some(open);
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), CasError> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let gathered = std::mem::take(&mut self.gathered);
        self.append(gathered.into()).await
    }
}

#[async_trait]
impl BlobWriter for DiskWriter {
    async fn write(&mut self, chunk: Bytes) -> Result<(), CasError> {
        if self.open.is_none() {
            return Err(CasError::Abandoned);
        }
        if self.gathered.len() + chunk.len() < GATHER {
            self.gathered.extend_from_slice(&chunk);
            return Ok(());
        }
        self.flush().await?;
        self.append(chunk).await
    }

    fn relax(&mut self) {
        self.durability = Durability::Lazy;
    }

    async fn commit(mut self: Box<Self>, expected: Option<Digest>) -> Result<BlobInfo, CasError> {
        self.flush().await?;
        let open = self.open.take().ok_or(CasError::Abandoned)?;
        let (layout, durability) = (self.layout.clone(), self.durability);
        blocking(move || finish(&layout, durability, open, expected)).await
    }
}

fn finish(
    layout: &Layout,
    durability: Durability,
    open: Open,
    expected: Option<Digest>,
) -> Result<BlobInfo, CasError> {
    let actual = Digest::from_bytes(open.hasher.finalize().into());
    if let Some(expected) = expected
        && expected != actual
    {
        return Err(CasError::Mismatch { expected, actual });
    }
    let path = layout.path_of(actual);
    let failed = |error| CasError::io("storing a blob at", &path, error);
    if durability == Durability::Synced {
        layout.syncs.fetch_add(1, Ordering::Relaxed);
        open.file.as_file().sync_data().map_err(failed)?;
    }
    place(layout, open.file, &path).map_err(failed)?;
    if durability == Durability::Synced {
        layout.syncs.fetch_add(1, Ordering::Relaxed);
        sync_parent(&path).map_err(failed)?;
    }
    Ok(BlobInfo {
        digest: actual,
        size: open.size,
    })
}

/// Renames the file to `path`, whose directory is made where it is the first one there.
fn place(layout: &Layout, file: NamedTempFile, path: &Path) -> io::Result<()> {
    let refused = match file.persist(path) {
        Ok(_) => return Ok(()),
        Err(refused) if refused.error.kind() == io::ErrorKind::NotFound => refused,
        Err(refused) => return Err(refused.error),
    };
    if let Some(shard) = path.parent() {
        std::fs::create_dir_all(shard)?;
        // It lasts whatever this blob does: others may follow into it.
        if layout.durability == Durability::Synced {
            sync_parent(shard)?;
        }
    }
    let placed = refused.file.persist(path);
    placed.map(drop).map_err(|refused| refused.error)
}

/// Makes the rename last.
fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => std::fs::File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}
