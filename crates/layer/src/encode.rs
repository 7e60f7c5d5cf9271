//! A layer's blob: its tar form, plain or compressed, made on several threads.
//!
//! The tar is cut into blocks of at most [`BLOCK`] bytes, and each becomes a gzip member or a zstd frame of its own. So the
//! output depends on the layer, the encoding and [`ENCODER_VERSION`], never on the number of threads, and the blob
//! can be read from the middle.
//!
//! Of the entries that begin in its second half, the one whose path has the lowest hash begins the next block. So the blocks of
//! two layers that differ in a few files are the same but for those around these files, wherever in the tar they lie, and
//! what those of an earlier layer were compressed to is taken over ([`Reuse`]).

mod block;
mod pipeline;

use std::io::{self, Write};

use buildyard_model::Digest;
use sha2::{Digest as _, Sha256};

use crate::tarform::{TarFormError, TarSummary};
use crate::{ExtentSource, Toc, write_tar};

pub use block::{Made, Mark, Reuse};

/// The version of everything that decides on the bytes below the tar form: block size and compressors. Goes into the
/// record (layer, encoding, level, encoder version) → digest; raise it when a compressor's output changes.
pub const ENCODER_VERSION: u32 = 2;

/// How many bytes of tar go into one gzip member or zstd frame at most.
pub const BLOCK: usize = 1 << 20;

/// How a layer is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// The tar as it is.
    Uncompressed,
    /// gzip, in independent members.
    Gzip {
        /// 0 (stored) to 12 (libdeflate's scale).
        level: u8,
    },
    /// zstd, in independent frames.
    Zstd {
        /// 1 to 22; 3 is the usual.
        level: u8,
    },
}

impl Encoding {
    /// gzip at level 4, where nobody asks for another: about as small as zlib's 6, in two thirds of the time of libdeflate's 6.
    pub const GZIP: Self = Self::Gzip { level: 4 };
    /// zstd at level 3.
    pub const ZSTD: Self = Self::Zstd { level: 3 };

    /// The OCI media type of such a layer.
    pub fn oci_media_type(self) -> &'static str {
        match self {
            Self::Uncompressed => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip { .. } => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd { .. } => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }

    /// The Docker media type of such a layer.
    pub fn docker_media_type(self) -> &'static str {
        match self {
            Self::Uncompressed => "application/vnd.docker.image.rootfs.diff.tar",
            Self::Gzip { .. } => "application/vnd.docker.image.rootfs.diff.tar.gzip",
            Self::Zstd { .. } => "application/vnd.docker.image.rootfs.diff.tar.zstd",
        }
    }
}

/// What was encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoded {
    /// The blob's SHA-256.
    pub digest: Digest,
    /// The blob's length in bytes.
    pub size: u64,
    /// SHA-256 of the uncompressed tar.
    pub diff_id: Digest,
}

/// Why a layer was not encoded.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The tar form could not be made.
    #[error(transparent)]
    Tar(#[from] TarFormError),
    /// The level is none of the encoding's.
    #[error("compression level {level} is out of range for {name} ({range})")]
    Level {
        /// The encoding's name.
        name: &'static str,
        /// What was asked for.
        level: u8,
        /// What there is.
        range: &'static str,
    },
    /// A compressor failed.
    #[error("cannot compress a block of a layer")]
    Compress(#[source] io::Error),
    /// The destination failed.
    #[error("cannot write the blob of a layer")]
    Write(#[source] io::Error),
}

/// Writes the blob of `toc` to `out` and hashes it: [`compress`] for those whose destination has no digest of its own.
pub fn encode(
    toc: &Toc,
    source: &dyn ExtentSource,
    encoding: Encoding,
    threads: usize,
    out: &mut dyn Write,
) -> Result<Encoded, EncodeError> {
    let mut out = HashingWriter {
        out,
        hasher: Sha256::new(),
        size: 0,
    };
    let compressed = compress(toc, source, encoding, threads, None, &mut out)?;
    let digest = Digest::from_bytes(out.hasher.finalize().into());
    Ok(Encoded {
        digest,
        size: out.size,
        diff_id: compressed.tar.diff_id,
    })
}

/// What was compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compressed {
    /// The tar, not the blob.
    pub tar: TarSummary,
    /// What the blob consists of, in order; nothing where it is the tar itself.
    pub blocks: Vec<Made>,
}

/// Writes the blob of `toc` to `out`, compressing on `threads` threads, and taking from `reuse` what was compressed before: the
/// bytes are the same with and without it. At most about `2 × threads` blocks are in memory. Errors leave `out` with a part of
/// the blob.
pub fn compress(
    toc: &Toc,
    source: &dyn ExtentSource,
    encoding: Encoding,
    threads: usize,
    reuse: Option<&dyn Reuse>,
    out: &mut dyn Write,
) -> Result<Compressed, EncodeError> {
    check_level(encoding)?;
    match encoding {
        Encoding::Uncompressed => {
            let tar = write_tar(toc, source, out).map_err(plain_error)?;
            let blocks = Vec::new();
            Ok(Compressed { tar, blocks })
        }
        _ => pipeline::run(toc, source, encoding, threads.max(1), reuse, out),
    }
}

fn plain_error(error: TarFormError) -> EncodeError {
    match error {
        TarFormError::Write(e) => EncodeError::Write(e),
        other => EncodeError::Tar(other),
    }
}

fn check_level(encoding: Encoding) -> Result<(), EncodeError> {
    match encoding {
        Encoding::Gzip { level } if level > 12 => Err(EncodeError::Level {
            name: "gzip",
            level,
            range: "0 to 12",
        }),
        Encoding::Zstd { level } if !(1..=22).contains(&level) => Err(EncodeError::Level {
            name: "zstd",
            level,
            range: "1 to 22",
        }),
        _ => Ok(()),
    }
}

struct HashingWriter<'a> {
    out: &'a mut dyn Write,
    hasher: Sha256,
    size: u64,
}

impl Write for HashingWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests;
