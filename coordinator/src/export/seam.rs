//! What exporters need from the rest of the coordinator.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use buildyard_image::{Compression, Descriptor, ImageConfig};
use buildyard_layer::{ExtentSource, Toc};
use buildyard_model::{Digest, LayerId, Platform};
use buildyard_registry::{BlobStream, Reference, Registry};
use buildyard_session::DirSource;

use super::ExportError;

/// One platform's finished image.
#[derive(Debug, Clone, PartialEq)]
pub struct PlatformImage {
    /// The platform it was built for.
    pub platform: Platform,
    /// The frontend's configuration: history without times, no root file system.
    pub config: ImageConfig,
    /// The layers, lowest first.
    pub layers: Vec<ImageLayer>,
}

/// One layer of a finished image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageLayer {
    /// The layer.
    pub layer: LayerId,
    /// RFC 3339 time at which the result was made, from its record: never the present.
    pub created: Option<String>,
    /// What made it, for a history that doesn't mention it.
    pub description: String,
}

/// How one layer goes out.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerBlob {
    /// The layer.
    pub layer: LayerId,
    /// Digest, size and media type (of either flavour) of the encoded layer.
    pub descriptor: Descriptor,
    /// SHA-256 of its tar form.
    pub diff_id: Digest,
    /// The repository that the blob was pulled from, where this very blob was.
    pub origin: Option<Reference>,
}

/// The layers of results, as exporters see them.
#[async_trait]
pub trait LayerBlobs: Send + Sync {
    /// How the layer goes out in this encoding. A pulled layer keeps the encoding it came in and names its origin, unless
    /// `force`. Makes the encoding if nobody has needed it yet.
    async fn describe(
        &self,
        layer: LayerId,
        compression: Compression,
        force: bool,
    ) -> Result<LayerBlob, ExportError>;

    /// The blob's bytes, from the local encoded copy or streamed from the origin, checked on the way: where they are not the
    /// blob's, an error comes in place of the last ones.
    async fn open(&self, blob: &LayerBlob) -> Result<BlobStream, ExportError>;

    /// Sees to it that the bytes, opened next, will be right, for those who cannot take back what they have sent: a copy on
    /// this machine is read once, unless this build has made it. A damaged one is gone after that, and made anew when it is
    /// opened. What is streamed from an origin is not read ahead.
    async fn prove(&self, blob: &LayerBlob) -> Result<(), ExportError>;

    /// The merged tree of a chain (`Tree::to_toc`: no whiteouts, no links to lower layers), and the bytes it points to.
    async fn tree(
        &self,
        layers: &[LayerId],
    ) -> Result<(Arc<Toc>, Arc<dyn ExtentSource>), ExportError>;
}

/// One output of the client, which takes the export.
#[async_trait]
pub trait ClientSink: Send + Sync {
    /// Sends one stream (an archive). `attrs` go along as metadata. Returns the bytes sent.
    async fn send_stream(
        &self,
        attrs: &BTreeMap<String, String>,
        body: BlobStream,
    ) -> Result<u64, ExportError>;

    /// Sends a directory. Returns the bytes of contents sent.
    async fn send_dir(&self, source: Arc<dyn DirSource>) -> Result<u64, ExportError>;
}

/// Shows the parts of an export: statuses of the export's vertex, by BuildKit's texts.
pub trait ExportProgress: Send + Sync {
    /// A part begins.
    fn begin(&self, part: &str);

    /// A part has moved `current` bytes, of `total` if that is known (else zero).
    fn moved(&self, part: &str, current: u64, total: u64);

    /// A part has ended, well or not.
    fn end(&self, part: &str);
}

/// What an export works on.
pub struct ExportRequest<'a> {
    /// The images, one per platform, in the order in which they were asked for. Empty images are fine.
    pub images: &'a [PlatformImage],
    /// Whether the client asked for several platforms (or for the form with several): then there is an index,
    /// and a directory per platform, also for one.
    pub multi_platform: bool,
    /// The layers.
    pub layers: Arc<dyn LayerBlobs>,
    /// The registries as this build's client may use them.
    pub registry: &'a Registry,
    /// The client's output.
    pub client: &'a dyn ClientSink,
    /// Where progress shows.
    pub progress: &'a dyn ExportProgress,
}
