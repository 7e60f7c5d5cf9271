//! Layers as tables of contents (TOCs) over extents of flat files.
//!
//! A layer is one file-system change. Its [`Toc`] lists every path with its metadata; a regular file's bytes are
//! [`Extent`]s of flat files. Mounts, cache keys, file steps and exports all work on TOCs and read only the extents
//! they need. See `ARCHITECTURE.md`, "A layer's life".

mod diff;
mod draft;
pub mod fileop;
mod glob;
mod merge;
pub mod names;
pub mod path;
mod pattern;
mod resolve;
mod select;
mod source;
mod toc;
mod tree;
mod writer;

pub use diff::diff;
pub use draft::Draft;
pub use glob::{BadPattern, glob_match, has_wildcards};
pub use path::path_cmp;
pub use pattern::{Matched, PatternError, Patterns, why_excluded};
pub use resolve::{Follow, ResolveError};
pub use select::{Selection, content_id};
pub use source::{CopySource, SelectError, SourceMatch};
pub use toc::{Entry, Extent, Kind, NameFiles, Time, Toc};
pub use tree::{Inode, Node, Tree, Walk};
