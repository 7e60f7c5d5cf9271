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
mod diff;
mod draft;
mod encode;
pub mod erofs;
mod extend;
mod extent_source;
pub mod fileop;
mod flat;
mod glob;
mod id;
mod ingest;
mod limits;
mod merge;
mod named;
pub mod names;
pub mod path;
mod pattern;
mod pieces;
mod ranges;
mod resolve;
mod select;
mod shared;
mod source;
mod tarform;
mod tarread;
mod tee;
#[cfg(test)]
mod testing;
mod toc;
mod tree;
mod unpack;
mod writer;

pub use assemble::number_links;
pub use capture::{CaptureError, Captured, capture};
pub use check::CheckError;
pub use codec::{MAX_DECODED, MAX_ENCODED, TocError};
pub use decompress::{
    Compression, DigestReader, Limited, TooManyBytes, decompressor, sniffed_decompressor,
};
pub use diff::diff;
pub use draft::Draft;
pub use encode::{
    BLOCK, Compressed, ENCODER_VERSION, EncodeError, Encoded, Encoding, Made, Mark, Reuse,
    compress, encode,
};
pub use extent_source::{ExtentSource, FileReader, read_names};
pub use flat::{
    Appended, FlatFiles, FlatUsage, FlatWatcher, FlatWriter, Room, Stamp, random_flat_id,
};
pub use glob::{BadPattern, glob_match, has_wildcards};
pub use ingest::{IngestError, Ingested, is_archive, read_archive, read_tar};
pub use limits::Limits;
pub use named::{NamedRanges, ranges_of};
pub use path::path_cmp;
pub use pattern::{Matched, PatternError, Patterns, why_excluded};
pub use pieces::{PIECE, open_piece, pieces, read_piece};
pub use ranges::Ranges;
pub use resolve::{Follow, ResolveError};
pub use select::{Selection, content_id};
pub use source::{CopySource, SelectError, SourceMatch};
pub use tarform::{TAR_FORM_VERSION, TarFormError, TarSummary, write_tar};
pub use toc::{Entry, Extent, Kind, NameFiles, Time, Toc};
pub use tree::{Inode, Node, Tree, Walk};
pub use unpack::{UnpackError, unpack, verify};
