//! What the farm knows about its layers.

use async_trait::async_trait;
use buildyard_model::{Digest, FlatId, LayerId, WorkerId};

use crate::{StoreError, UnixMillis};

/// At most this many sources are kept per layer, the last seen ones.
pub const MAX_SOURCES: usize = 16;

/// One layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerRecord {
    /// Its diff id if it was pulled, the hash of its TOC without times if it was made here.
    pub id: LayerId,
    /// The blob with its encoded TOC; `None` for a pulled layer that nobody has read yet.
    pub toc: Option<Digest>,
    /// The size of that blob in bytes; 0 without one.
    pub toc_size: u64,
    /// The flat files that the TOC names, in its order, and how many of their bytes it names.
    pub flats: Vec<(FlatId, u64)>,
    /// Where it was pulled from, and the encoding it came in.
    pub pulled: Option<Pulled>,
    /// The worker that made it.
    pub made_by: Option<WorkerId>,
    /// Its TOC and flat files are in the shared store.
    pub published: bool,
    /// When the record was made.
    pub created: UnixMillis,
}

/// A pulled layer's compressed form, as its registry has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The compressed blob.
    pub blob: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Its media type.
    pub media_type: String,
    /// Where it can be had, last seen first; at most [`MAX_SOURCES`].
    pub sources: Vec<Source>,
}

/// A place that a pulled layer's blob lies in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Source {
    /// `host[:port]`.
    pub registry: String,
    /// The repository's name there.
    pub repository: String,
}

/// Layers by id.
#[async_trait]
pub trait Layers: Send + Sync {
    /// Records layers. One that is known keeps its TOC and flat files if they are published; otherwise the new ones
    /// take their place (another worker made the same layer again, or a pulled layer was read). The sources of one
    /// blob add up. A TOC with the blob that it was read from counts only while that is the blob which is recorded: nobody
    /// has checked another.
    async fn put_layers(&self, layers: &[LayerRecord]) -> Result<(), StoreError>;

    /// The records of `ids`, in their order.
    async fn layers(&self, ids: &[LayerId]) -> Result<Vec<Option<LayerRecord>>, StoreError>;

    /// The blob of a pulled layer was seen in `source`. Returns whether the layer is known as a pulled one.
    async fn add_source(
        &self,
        layer: LayerId,
        source: &Source,
        now: UnixMillis,
    ) -> Result<bool, StoreError>;

    /// TOC and flat files of this layer are in the shared store now. `false`: the record has another TOC by now (a
    /// second worker made the layer and its record is kept), or is gone.
    async fn set_published(&self, layer: LayerId, toc: Digest) -> Result<bool, StoreError>;

    /// Removes layers with their encodings, and with them every result that contains one. Returns how many results
    /// became misses.
    async fn remove_layers(&self, layers: &[LayerId]) -> Result<usize, StoreError>;
}
