//! TOCs as bytes: `BYTOC`, a version, then zstd over postcard.
//!
//! The bytes are for storage and for our own wire; they are not frozen: an unknown version is an error that callers
//! treat as "not here". Decoding is bounded before anything is allocated.

use std::io::Read;

use crate::{CheckError, Toc};

const MAGIC: &[u8; 5] = b"BYTOC";
const VERSION: u8 = 1;
const LEVEL: i32 = 3;

/// The longest encoded TOC that is taken, in bytes.
pub const MAX_ENCODED: usize = 512 << 20;
/// The longest TOC before compression that is taken, in bytes.
pub const MAX_DECODED: u64 = 2 << 30;

/// Why bytes are not a TOC.
#[derive(Debug, thiserror::Error)]
pub enum TocError {
    /// Not a TOC, or one of another version.
    #[error("these bytes are not a table of contents of version {VERSION}")]
    Format,
    /// Beyond [`MAX_ENCODED`] or [`MAX_DECODED`].
    #[error(
        "table of contents is larger than {MAX_DECODED} bytes, or {MAX_ENCODED} compressed; refused"
    )]
    TooLarge,
    /// Damaged compression.
    #[error("table of contents cannot be decompressed")]
    Compression(#[source] std::io::Error),
    /// Damaged content.
    #[error("table of contents cannot be decoded")]
    Content(#[source] postcard::Error),
    /// Well-formed, but breaks an invariant.
    #[error("table of contents is not valid")]
    Invalid(#[from] CheckError),
}

impl Toc {
    /// The TOC as bytes for [`Toc::decode`]. Equal TOCs give equal bytes within one version of this program.
    pub fn encode(&self) -> Vec<u8> {
        let plain = postcard::to_stdvec(self)
            .expect("postcard writes every value of these types to memory");
        let packed =
            zstd::bulk::compress(&plain, LEVEL).expect("zstd compresses any bytes into memory");
        let mut bytes = Vec::with_capacity(MAGIC.len() + 1 + packed.len());
        bytes.extend_from_slice(MAGIC);
        bytes.push(VERSION);
        bytes.extend_from_slice(&packed);
        bytes
    }

    /// Reads what [`Toc::encode`] wrote, and checks every invariant. Trailing bytes are an error.
    pub fn decode(bytes: &[u8]) -> Result<Self, TocError> {
        if bytes.len() > MAX_ENCODED {
            return Err(TocError::TooLarge);
        }
        let packed = bytes
            .strip_prefix(MAGIC)
            .and_then(|rest| rest.strip_prefix(&[VERSION]));
        let plain = unpack(packed.ok_or(TocError::Format)?)?;
        let (toc, rest): (Self, _) =
            postcard::take_from_bytes(&plain).map_err(TocError::Content)?;
        if !rest.is_empty() {
            return Err(TocError::Format);
        }
        toc.check()?;
        Ok(toc)
    }
}

fn unpack(packed: &[u8]) -> Result<Vec<u8>, TocError> {
    let mut plain = Vec::new();
    let decoder = zstd::Decoder::new(packed).map_err(TocError::Compression)?;
    decoder
        .take(MAX_DECODED + 1)
        .read_to_end(&mut plain)
        .map_err(TocError::Compression)?;
    if plain.len() as u64 > MAX_DECODED {
        return Err(TocError::TooLarge);
    }
    Ok(plain)
}

#[cfg(test)]
mod tests;
