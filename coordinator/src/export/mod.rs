//! Exporters: what becomes of a finished build.
//!
//! Images go to registries
//! (`type=image`) or as archives to the client (`type=oci`, `type=docker`); file systems go to the client (`type=local`,
//! `type=tar`). Where layers come from is the business of whoever implements [`LayerBlobs`]; how the client is reached that of
//! [`ClientSink`].

mod error;
mod seam;

pub use error::ExportError;
pub use seam::{
    ClientSink, DirEntry, DirKind, DirSource, ExportProgress, ExportRequest, ExtentSource,
    FileReader, ImageLayer, LayerBlob, LayerBlobs, PlatformImage,
};
