//! The side file of an image: the bytes of files that chunks cannot show where they are.
//!
//! Each such file lies in it as it reads, from a block's beginning, with its holes as holes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{BLOCK, ErofsError, unfit};
use crate::path::show;
use crate::{ExtentSource, Kind};

use super::stack::Item;

/// How much is copied at once.
const PIECE: u64 = 1 << 20;

pub(super) struct Side<'a> {
    path: &'a Path,
    file: Option<File>,
    blocks: u64,
}

impl<'a> Side<'a> {
    /// A side file that is made when something is put into it.
    pub(super) fn new(path: &'a Path) -> Self {
        Self {
            path,
            file: None,
            blocks: 0,
        }
    }

    /// How many blocks it has; `None` where it was not made.
    pub(super) fn blocks(&self) -> Option<u32> {
        self.file.as_ref()?;
        u32::try_from(self.blocks).ok()
    }

    /// Copies a file's bytes, and returns the block that they begin at.
    pub(super) fn put(
        &mut self,
        item: &Item<'_>,
        source: &dyn ExtentSource,
    ) -> Result<u32, ErofsError> {
        let Kind::File { size, extents, .. } = &item.entry.kind else {
            return Err(unfit(&item.path, "only files have bytes"));
        };
        let block = self.blocks;
        self.blocks = block.saturating_add(size.div_ceil(BLOCK));
        let (Ok(start), Ok(_)) = (u32::try_from(block), u32::try_from(self.blocks)) else {
            return Err(unfit(
                &item.path,
                "files whose bytes are scattered have over 2 TiB together",
            ));
        };
        let failed = |path: &Path, source| ErofsError::Write {
            path: path.display().to_string(),
            source,
        };
        if self.file.is_none() {
            let made = File::create_new(self.path);
            self.file = Some(made.map_err(|error| failed(self.path, error))?);
        }
        let (Some(file), end) = (&self.file, self.blocks * BLOCK) else {
            return Err(failed(self.path, io::ErrorKind::NotFound.into()));
        };
        file.set_len(end)
            .map_err(|error| failed(self.path, error))?;
        for extent in extents {
            let flat = item.flats.get(extent.flat as usize);
            let mut done = 0;
            while done < extent.length {
                let mut piece = vec![0; PIECE.min(extent.length - done) as usize];
                let read = match flat {
                    Some(flat) => source.read_at(*flat, extent.offset + done, &mut piece),
                    None => Err(io::ErrorKind::InvalidData.into()),
                };
                read.map_err(|source| ErofsError::Read {
                    path: show(&item.path),
                    source,
                })?;
                file.write_all_at(&piece, block * BLOCK + extent.at + done)
                    .map_err(|error| failed(self.path, error))?;
                done += piece.len() as u64;
            }
        }
        Ok(start)
    }
}
