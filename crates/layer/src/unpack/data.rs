//! A file's bytes, read and held against the digest that the TOC promises.

use std::io;

use buildyard_model::{Digest, FlatId};
use sha2::{Digest as _, Sha256};

use super::UnpackError;
use crate::ingest::hash_zeros;
use crate::path::show;
use crate::{Extent, ExtentSource};

/// Takes a piece of a file that begins at this byte of it.
type Take<'a> = dyn FnMut(&[u8], u64) -> Result<(), UnpackError> + 'a;

/// A file's bytes, where they are and what they must be.
pub(super) struct Data<'a> {
    pub(super) path: &'a [u8],
    pub(super) size: u64,
    pub(super) content: Digest,
    pub(super) extents: &'a [Extent],
    pub(super) flats: &'a [FlatId],
}

impl Data<'_> {
    /// Gives all bytes to `take`, each piece with the place that it has in the file, and checks the digest. What lies between the
    /// extents is zeros and is not given.
    pub(super) fn read(
        &self,
        source: &dyn ExtentSource,
        buffer: &mut [u8],
        take: &mut Take<'_>,
    ) -> Result<(), UnpackError> {
        let mut hasher = Sha256::new();
        let mut end = 0;
        for extent in self.extents {
            hash_zeros(&mut hasher, extent.at - end);
            self.read_extent(extent, source, buffer, &mut |bytes, at| {
                hasher.update(bytes);
                take(bytes, at)
            })?;
            end = extent.at + extent.length;
        }
        hash_zeros(&mut hasher, self.size - end);
        let found = Digest::from_bytes(hasher.finalize().into());
        if found == self.content {
            return Ok(());
        }
        let flat = self.extents.first();
        let flat = flat.and_then(|extent| self.flats.get(extent.flat as usize));
        Err(UnpackError::Damaged {
            path: show(self.path),
            flat: flat.map_or_else(|| "(none)".to_owned(), FlatId::to_string),
            wanted: self.content,
            found,
        })
    }

    fn read_extent(
        &self,
        extent: &Extent,
        source: &dyn ExtentSource,
        buffer: &mut [u8],
        take: &mut Take<'_>,
    ) -> Result<(), UnpackError> {
        let unreadable = |source: io::Error| UnpackError::Read {
            path: show(self.path),
            source,
        };
        let flat = self.flats.get(extent.flat as usize);
        let flat = flat.ok_or_else(|| unreadable(io::ErrorKind::InvalidData.into()))?;
        let mut done = 0;
        while done < extent.length {
            let part = (extent.length - done).min(buffer.len() as u64) as usize;
            let bytes = &mut buffer[..part];
            source
                .read_at(*flat, extent.offset + done, bytes)
                .map_err(unreadable)?;
            take(bytes, extent.at + done)?;
            done += part as u64;
        }
        Ok(())
    }
}
