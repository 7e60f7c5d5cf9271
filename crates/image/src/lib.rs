//! Images as documents: configuration, manifest, index, and their media types.
//!
//! Documents only: nothing here reads a registry or a layer. A document's digest is that of the bytes that travel, so
//! whoever sends one serialises it once (`to_bytes`) and keeps the bytes; one that was received is kept as it came.

mod assemble;
mod config;
mod descriptor;
mod manifest;
mod media_type;
mod select;

pub use assemble::{LayerRecord, assemble_config};
pub use config::{ContainerConfig, Empty, Healthcheck, History, ImageConfig, RootFs};
pub use descriptor::{Descriptor, DescriptorPlatform};
pub use manifest::{
    Document, DocumentError, Index, MAX_CONFIG_SIZE, MAX_INDEX_ENTRIES, MAX_LAYERS,
    MAX_MANIFEST_SIZE, Manifest, parse_config,
};
pub use media_type::{
    Compression, CompressionKind, MediaTypes, ParseCompressionError, layer_compression, to_flavour,
};
pub use select::{PlatformChoice, accepted_platforms, attestation, choose};
