//! Images as documents: configuration, manifest, index, and their media types.
//!
//! Documents only: nothing here reads a registry or a layer.

mod config;

pub use config::{ContainerConfig, Healthcheck, History, ImageConfig, RootFs};
