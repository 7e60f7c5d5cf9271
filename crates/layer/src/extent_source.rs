//! Reading the bytes that a TOC points to.

use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use buildyard_model::FlatId;

use crate::flat::FlatFiles;
use crate::path::show;
use crate::{Entry, Extent, Kind, NameFiles, Toc};

/// The bytes of flat files, wherever they are.
pub trait ExtentSource: Send + Sync {
    /// Fills `buf` with the bytes at `offset` of the flat file, or fails: never fewer bytes, never bytes that are
    /// not known to be right.
    fn read_at(&self, flat: FlatId, offset: u64, buf: &mut [u8]) -> io::Result<()>;
}

impl ExtentSource for FlatFiles {
    fn read_at(&self, flat: FlatId, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let asked = offset..offset.saturating_add(buf.len() as u64);
        let mut opened = self.opened(flat)?;
        if !opened.has(&asked) {
            // Somebody else may have fetched more since the file was opened.
            self.forget(flat);
            opened = self.opened(flat)?;
        }
        if !opened.has(&asked) {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!(
                    "bytes {}..{} of flat file {flat} are not on this machine",
                    asked.start, asked.end
                ),
            ));
        }
        opened.file.read_exact_at(buf, offset).map_err(|e| {
            let what = format!(
                "cannot read bytes {}..{} of flat file {flat}: {e}",
                asked.start, asked.end
            );
            io::Error::new(e.kind(), what)
        })
    }
}

/// Reads one file of a TOC from its extents; holes read as zeros. Buffers nothing.
pub struct FileReader<'a> {
    flats: &'a [FlatId],
    source: &'a dyn ExtentSource,
    extents: &'a [Extent],
    size: u64,
    at: u64,
}

impl<'a> FileReader<'a> {
    /// A reader of the file at `extents`, `size` bytes long, whose extents index `flats`.
    pub fn new(
        source: &'a dyn ExtentSource,
        flats: &'a [FlatId],
        size: u64,
        extents: &'a [Extent],
    ) -> Self {
        Self {
            flats,
            source,
            extents,
            size,
            at: 0,
        }
    }

    /// A reader of `entry` of `toc`; `None` where the entry is not a regular file.
    pub fn of_entry(source: &'a dyn ExtentSource, toc: &'a Toc, entry: &'a Entry) -> Option<Self> {
        match &entry.kind {
            Kind::File { size, extents, .. } => Some(Self::new(source, &toc.flats, *size, extents)),
            _ => None,
        }
    }
}

impl Read for FileReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self
            .extents
            .first()
            .is_some_and(|e| e.at + e.length <= self.at)
        {
            self.extents = &self.extents[1..];
        }
        let (data, until) = match self.extents.first() {
            Some(e) if e.at <= self.at => (Some(e), e.at + e.length),
            Some(e) => (None, e.at),
            None => (None, self.size),
        };
        let length = (until - self.at).min(buf.len() as u64) as usize;
        let buf = &mut buf[..length];
        match data {
            Some(extent) if length > 0 => {
                let flat = self
                    .flats
                    .get(extent.flat as usize)
                    .ok_or(io::ErrorKind::InvalidData)?;
                self.source
                    .read_at(*flat, extent.offset + (self.at - extent.at), buf)?;
            }
            _ => buf.fill(0),
        }
        self.at += length as u64;
        Ok(length)
    }
}

/// The longest name file that is kept in a TOC, in bytes.
const MAX_NAME_FILE: u64 = 1 << 20;

/// Reads `etc/passwd` and `etc/group` of `toc`, where it has them as regular files of at most 1 MiB.
pub fn read_names(toc: &Toc, source: &dyn ExtentSource) -> io::Result<NameFiles> {
    Ok(NameFiles {
        passwd: read_name_file(toc, source, b"etc/passwd")?,
        group: read_name_file(toc, source, b"etc/group")?,
    })
}

fn read_name_file(
    toc: &Toc,
    source: &dyn ExtentSource,
    path: &[u8],
) -> io::Result<Option<Vec<u8>>> {
    let Ok(at) = toc
        .entries
        .binary_search_by(|e| crate::path::path_cmp(&e.path, path))
    else {
        return Ok(None);
    };
    let entry = &toc.entries[at];
    let small = matches!(entry.kind, Kind::File { size, .. } if size <= MAX_NAME_FILE);
    let Some(mut reader) = FileReader::of_entry(source, toc, entry).filter(|_| small) else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    let read = reader.read_to_end(&mut bytes);
    read.map_err(|e| io::Error::new(e.kind(), format!("cannot read {}: {e}", show(path))))?;
    Ok(Some(bytes))
}
