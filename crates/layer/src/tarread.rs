//! Reading a tar stream member by member: USTAR, GNU and PAX, with sparse files.
//!
//! The crate `tar` gives the header's layout and checksum; its iterator is not used, because it splits PAX records at
//! newlines (binary attributes contain them), reads extended headers without a bound and knows no PAX sparse files.
//! Sources of the format: POSIX.1-2017 `pax`, and the GNU tar manual, "Standard Format" and "Sparse Formats".

mod header;
mod pax;
mod sparse;

use std::collections::BTreeMap;
use std::io::{self, Read};

use crate::{Limits, Time};

pub(crate) use pax::push_record;

const BLOCK: u64 = 512;

/// Why a tar stream cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TarError {
    /// The stream itself failed, or ended in the middle.
    #[error("cannot read the archive")]
    Read(#[from] io::Error),
    /// Not a tar, or a damaged one.
    #[error("archive is malformed at byte {at}: {what}")]
    Malformed { at: u64, what: &'static str },
    /// An extended header or sparse map beyond the limits.
    #[error("archive has a header of more than {limit} bytes at byte {at}")]
    HeaderTooLong { at: u64, limit: u64 },
}

/// One member of a tar, with its extended headers applied.
#[derive(Debug, Clone, Default)]
pub(crate) struct Member {
    pub(crate) path: Vec<u8>,
    pub(crate) link: Vec<u8>,
    /// POSIX type flag; `0` for every kind of regular file.
    pub(crate) flag: u8,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) mtime: Time,
    /// Bytes stored in the archive; for sparse files without the holes.
    pub(crate) stored: u64,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) sparse: Option<Sparse>,
}

/// Where a sparse file's stored bytes belong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sparse {
    /// The file's length with its holes.
    pub(crate) size: u64,
    /// (position in the file, length), in the order in which they are stored.
    pub(crate) chunks: Vec<(u64, u64)>,
}

/// Reads members from a stream. `Read` gives the data of the member that [`TarReader::next_member`] returned last.
pub(crate) struct TarReader<R> {
    reader: R,
    /// Bytes read so far.
    at: u64,
    /// Bytes left of the current member's data.
    remaining: u64,
    padding: u64,
    header_limit: u64,
}

impl<R: Read> TarReader<R> {
    pub(crate) fn new(reader: R, limits: &Limits) -> Self {
        Self {
            reader,
            at: 0,
            remaining: 0,
            padding: 0,
            header_limit: limits.header,
        }
    }

    /// The position of the next byte in the stream; right after [`TarReader::next_member`], of the member's data.
    pub(crate) fn position(&self) -> u64 {
        self.at
    }

    /// Skips what is left of the current member and reads the next one's headers. `None` at the end of the archive.
    pub(crate) fn next_member(&mut self) -> Result<Option<Member>, TarError> {
        let mut extended = header::Extended::default();
        loop {
            self.skip_rest()?;
            let Some(block) = self.header_block()? else {
                return if extended.is_empty() {
                    Ok(None)
                } else {
                    Err(self.malformed("it ends after an extended header"))
                };
            };
            let head = header::parse(&block).map_err(|what| self.malformed(what))?;
            match head.flag {
                b'x' | b'L' | b'K' => {
                    let bytes = self.extended_header(head.size)?;
                    extended
                        .add(head.flag, bytes)
                        .map_err(|what| self.malformed(what))?;
                }
                // A global header changes nothing that a layer has; Go's reader leaves it to its callers, which skip it.
                b'g' => drop(self.extended_header(head.size)?),
                _ => return self.member(&block, head, extended).map(Some),
            }
        }
    }

    fn member(
        &mut self,
        block: &[u8; 512],
        head: header::Head,
        extended: header::Extended,
    ) -> Result<Member, TarError> {
        let (mut member, hints) = extended.apply(head).map_err(|what| self.malformed(what))?;
        self.remaining = member.stored;
        self.padding = member.stored.next_multiple_of(BLOCK) - member.stored;
        if block[156] == b'S' {
            member.sparse = Some(self.gnu_sparse(block)?);
        } else if let Some(size) = hints.size {
            member.sparse = Some(self.pax_sparse(size, hints)?);
        }
        if let Some(map) = &member.sparse {
            member.stored = self.remaining;
            sparse::check(map, member.stored).map_err(|what| self.malformed(what))?;
        }
        Ok(member)
    }

    /// The map of an old GNU sparse file: four chunks in the header, more in blocks between header and data.
    fn gnu_sparse(&mut self, block: &[u8; 512]) -> Result<Sparse, TarError> {
        let (mut map, mut more) =
            sparse::from_gnu_header(block).map_err(|what| self.malformed(what))?;
        while more {
            let mut extension = [0; 512];
            self.fill(&mut extension)?;
            more = sparse::add_gnu_extension(&mut map, &extension)
                .map_err(|what| self.malformed(what))?;
            self.check_map(map.chunks.len())?;
        }
        Ok(map)
    }

    /// The map of a PAX sparse file: in its records (0.0, 0.1) or at the start of its data (1.0).
    fn pax_sparse(&mut self, size: u64, hints: header::SparseHints) -> Result<Sparse, TarError> {
        if !hints.in_data {
            return Ok(Sparse {
                size,
                chunks: hints.chunks,
            });
        }
        let mut parser = sparse::MapParser::default();
        while !parser.is_done() {
            let mut block = [0; 512];
            if self.remaining < BLOCK {
                return Err(self.malformed("a sparse file ends inside its map"));
            }
            self.fill(&mut block)?;
            self.remaining -= BLOCK;
            parser.add(&block).map_err(|what| self.malformed(what))?;
            self.check_map(parser.len())?;
        }
        Ok(Sparse {
            size,
            chunks: parser.into_chunks(),
        })
    }

    fn check_map(&self, chunks: usize) -> Result<(), TarError> {
        if chunks as u64 * 24 > self.header_limit {
            return Err(TarError::HeaderTooLong {
                at: self.at,
                limit: self.header_limit,
            });
        }
        Ok(())
    }

    /// The next header, or `None` at the end: a block of zeros followed by another or by the end of the stream.
    fn header_block(&mut self) -> Result<Option<[u8; 512]>, TarError> {
        let mut block = [0; 512];
        if !self.fill_or_end(&mut block)? {
            return Ok(None);
        }
        if block != [0; 512] {
            return Ok(Some(block));
        }
        if self.fill_or_end(&mut block)? && block != [0; 512] {
            return Err(self.malformed("a single block of zeros between members"));
        }
        Ok(None)
    }

    fn extended_header(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        if size > self.header_limit {
            return Err(TarError::HeaderTooLong {
                at: self.at,
                limit: self.header_limit,
            });
        }
        let mut bytes = vec![0; size as usize];
        self.fill(&mut bytes)?;
        self.padding = size.next_multiple_of(BLOCK) - size;
        Ok(bytes)
    }

    fn skip_rest(&mut self) -> io::Result<()> {
        let mut left =
            std::mem::take(&mut self.remaining).saturating_add(std::mem::take(&mut self.padding));
        let mut scratch = [0; 4096];
        while left > 0 {
            let part = left.min(scratch.len() as u64) as usize;
            self.fill(&mut scratch[..part])?;
            left -= part as u64;
        }
        Ok(())
    }

    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        self.reader.read_exact(buffer)?;
        self.at += buffer.len() as u64;
        Ok(())
    }

    /// Fills the block, or returns `false` where the stream ends before its first byte.
    fn fill_or_end(&mut self, block: &mut [u8; 512]) -> io::Result<bool> {
        let got = crate::flat::read_full(&mut self.reader, block)?;
        self.at += got as u64;
        match got {
            0 => Ok(false),
            512 => Ok(true),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn malformed(&self, what: &'static str) -> TarError {
        TarError::Malformed { at: self.at, what }
    }
}

impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = self.remaining.min(buf.len() as u64) as usize;
        if most == 0 {
            return Ok(0);
        }
        let got = self.reader.read(&mut buf[..most])?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += got as u64;
        self.remaining -= got as u64;
        Ok(got)
    }
}

/// Whether `block` is the first header of a tar: not empty, with a right checksum.
pub(crate) fn is_header(block: &[u8; 512]) -> bool {
    header::parse(block).is_ok()
}
