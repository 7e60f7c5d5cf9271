//! Layers as tables of contents (TOCs) over extents of flat files.
//!
//! A layer is one file-system change. Its [`Toc`] lists every path with its metadata; a regular file's bytes are
//! [`Extent`]s of flat files. Mounts, cache keys, file steps and exports all work on TOCs and read only the extents
//! they need. See `ARCHITECTURE.md`, "A layer's life".

mod toc;

pub use toc::{Entry, Extent, Kind, NameFiles, Time, Toc};
