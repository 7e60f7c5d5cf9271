//! One block: compressed, or taken over from an earlier blob.

use std::io;

use super::{BLOCK, Encoding};

/// What two equal blocks have in common. Others may have it too: it says where to look, not what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mark {
    crc: u32,
    length: u32,
}

impl Mark {
    fn of(block: &[u8]) -> Self {
        Self {
            crc: libdeflater::crc32(block),
            // At most a block.
            length: block.len() as u32,
        }
    }
}

/// A block in a blob that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made {
    /// What it was made of.
    pub mark: Mark,
    /// Where its gzip member or zstd frame begins in the blob.
    pub offset: u64,
    /// How many bytes that has.
    pub length: u64,
}

/// Gzip members or zstd frames of one encoding that were made before. Called from several threads, which it may block.
pub trait Reuse: Sync {
    /// What a block with this mark was compressed to, where there is such a one. Need not be right: whoever asks expands it and
    /// compares.
    fn find(&self, mark: Mark) -> Option<Vec<u8>>;
}

/// Compresses blocks.
pub(super) enum Compressor {
    Gzip(libdeflater::Compressor, libdeflater::Decompressor),
    Zstd(
        Box<zstd::bulk::Compressor<'static>>,
        Box<zstd::bulk::Decompressor<'static>>,
    ),
}

impl Compressor {
    pub(super) fn new(encoding: Encoding) -> io::Result<Self> {
        match encoding {
            Encoding::Zstd { level } => {
                let compressor = zstd::bulk::Compressor::new(level.into())?;
                let decompressor = zstd::bulk::Decompressor::new()?;
                Ok(Self::Zstd(Box::new(compressor), Box::new(decompressor)))
            }
            Encoding::Gzip { level } => {
                let level = libdeflater::CompressionLvl::new(level.into());
                let level = level.map_err(|e| io::Error::other(format!("{e:?}")))?;
                let compressor = libdeflater::Compressor::new(level);
                Ok(Self::Gzip(compressor, libdeflater::Decompressor::new()))
            }
            Encoding::Uncompressed => Err(io::Error::other("nothing to compress")),
        }
    }

    /// What the block is compressed to, made or found.
    pub(super) fn pack(
        &mut self,
        block: &[u8],
        reuse: Option<&dyn Reuse>,
    ) -> io::Result<(Mark, Vec<u8>)> {
        let mark = Mark::of(block);
        let found = reuse.and_then(|reuse| reuse.find(mark));
        let packed = match found.filter(|packed| self.expands_to(packed, block)) {
            Some(packed) => packed,
            None => self.compress(block)?,
        };
        Ok((mark, packed))
    }

    fn expands_to(&mut self, packed: &[u8], block: &[u8]) -> bool {
        let mut expanded = vec![0; BLOCK];
        let length = match self {
            Self::Zstd(_, zstd) => zstd.decompress_to_buffer(packed, &mut expanded).ok(),
            Self::Gzip(_, gzip) => gzip.gzip_decompress(packed, &mut expanded).ok(),
        };
        length.is_some_and(|length| expanded[..length] == *block)
    }

    fn compress(&mut self, block: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Zstd(zstd, _) => zstd.compress(block),
            Self::Gzip(gzip, _) => {
                let mut packed = vec![0; gzip.gzip_compress_bound(block.len())];
                let length = gzip
                    .gzip_compress(block, &mut packed)
                    .map_err(|e| io::Error::other(e.to_string()))?;
                packed.truncate(length);
                Ok(packed)
            }
        }
    }
}
