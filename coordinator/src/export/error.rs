//! Why an export failed.

use buildyard_registry::RegistryError;

/// A failed export.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// An attribute of the output that isn't known, or whose value makes no sense.
    #[error("output type={exporter}: {cause}")]
    Attribute {
        /// `image`, `oci`, …
        exporter: String,
        /// Which attribute, and what is wrong with it.
        cause: String,
    },
    /// What was asked for can't be exported this way.
    #[error("{0}")]
    Refused(String),
    /// A registry said no, or couldn't be reached.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A layer couldn't be made ready or read.
    #[error("layer {layer}: {cause}")]
    Layer {
        /// The layer's id.
        layer: String,
        /// What went wrong.
        cause: String,
    },
    /// The client couldn't take the result.
    #[error("{0}")]
    Client(String),
}
