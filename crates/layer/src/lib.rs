//! Layers as tables of contents (TOCs) over extents of flat files.
//!
//! A layer is one file-system change. Its [`Toc`] lists every path with its metadata; a regular file's bytes are
//! [`Extent`]s of flat files. Mounts, cache keys, file steps and exports all work on TOCs and read only the extents
//! they need. See `ARCHITECTURE.md`, "A layer's life".

mod assemble;
mod beneath;
mod capture;
mod check;
mod codec;
mod decompress;
mod encode;
mod flat;
mod id;
mod ingest;
mod limits;
mod lower;
pub mod path;
mod ranges;
mod source;
mod tarform;
mod tarread;
mod tee;
#[cfg(test)]
mod testing;
mod toc;
mod unpack;

pub use assemble::number_links;
pub use capture::{CaptureError, Captured, capture};
pub use check::CheckError;
pub use codec::{MAX_DECODED, MAX_ENCODED, TocError};
pub use decompress::{
    Compression, DigestReader, Limited, TooManyBytes, decompressor, sniffed_decompressor,
};
pub use encode::{BLOCK, ENCODER_VERSION, EncodeError, Encoded, Encoding, encode};
pub use flat::{Appended, FlatFiles, FlatUsage, FlatWriter, random_flat_id};
pub use ingest::{IngestError, Ingested, is_archive, read_archive, read_tar};
pub use limits::Limits;
pub use lower::Lower;
pub use path::path_cmp;
pub use ranges::Ranges;
pub use source::{ExtentSource, FileReader, read_names};
pub use tarform::{TAR_FORM_VERSION, TarFormError, TarSummary, write_tar};
pub use toc::{Entry, Extent, Kind, NameFiles, Time, Toc};
pub use unpack::{UnpackError, unpack};
