//! The layers of the farm as the coordinator holds them: records in the store, TOCs as blobs, bytes in flat files.

mod chunks;
mod damage;
mod encode;
mod encoded;
mod kept;
mod origins;
mod ready;
mod record;

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex};

use buildyard_cas::{BlobStore, CasError};
use buildyard_layer::{EncodeError, FlatFiles, MAX_ENCODED, NamedRanges, Toc, TocError};
use buildyard_model::{Chain, FlatId, LayerId};
use buildyard_solver::RecentTocs;
use buildyard_solver::pull::PullError;
use buildyard_store::{EncodingKey, LayerRecord, Store, StoreError};

pub use encoded::ExportLayers;
pub use origins::Origins;

/// How many layers are encoded at one time.
const ENCODERS: usize = 4;

/// What can go wrong with layers.
#[derive(Debug, thiserror::Error)]
pub enum LayersError {
    /// The metadata could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A blob could not be read or written.
    #[error(transparent)]
    Blobs(#[from] CasError),
    /// A flat file could not be read or written.
    #[error("reading or writing a flat file")]
    Flats(#[from] io::Error),
    /// A TOC is damaged.
    #[error("the table of contents of layer {0} cannot be used")]
    Toc(LayerId, #[source] TocError),
    /// A TOC is not the one that its layer is known by.
    #[error("the table of contents sent for layer {0} is that of another layer")]
    WrongToc(LayerId),
    /// Nobody has heard of the layer.
    #[error("layer {0} is not known")]
    Unknown(LayerId),
    /// A worker sent bytes that no layer of its asks for.
    #[error("the bytes sent for flat file {0} lie outside of what its layer names")]
    OutsideOfLayer(FlatId),
    /// The bytes of a layer are nowhere.
    #[error("the bytes of layer {0} are lost; build again, and what is missing is made anew")]
    Lost(LayerId),
    /// An image's layer could not be pulled.
    #[error(transparent)]
    Pull(PullError),
    /// A layer could not be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// The layers of one coordinator.
pub struct LayerStore {
    store: Arc<dyn Store>,
    blobs: Arc<dyn BlobStore>,
    flats: FlatFiles,
    /// Those used last.
    memory: RecentTocs<LayerId>,
    /// Encodings that are being made.
    encoding: Mutex<HashMap<EncodingKey, Arc<tokio::sync::Mutex<()>>>>,
    /// Permits to encode: each uses all processors, and the memory for their blocks.
    encoders: tokio::sync::Semaphore,
    kept: Arc<kept::KeptBlocks>,
    /// Layers that are being pulled.
    pulling: Mutex<HashMap<LayerId, Arc<tokio::sync::Mutex<()>>>>,
}

impl LayerStore {
    /// Layers over these stores.
    pub fn new(store: Arc<dyn Store>, blobs: Arc<dyn BlobStore>, flats: FlatFiles) -> Self {
        Self {
            store,
            blobs,
            flats,
            memory: RecentTocs::default(),
            encoding: Mutex::default(),
            encoders: tokio::sync::Semaphore::new(ENCODERS),
            kept: Arc::default(),
            pulling: Mutex::default(),
        }
    }

    /// The flat files on this machine.
    pub fn flats(&self) -> &FlatFiles {
        &self.flats
    }

    /// The blobs.
    pub fn blobs(&self) -> &Arc<dyn BlobStore> {
        &self.blobs
    }

    /// A layer's table of contents; `None` where it was never made, or is lost.
    pub async fn toc(&self, id: LayerId) -> Result<Option<Arc<Toc>>, LayersError> {
        if let Some(toc) = self.memory.get(&id) {
            return Ok(Some(toc));
        }
        let record = self.record(id).await?;
        let Some(bytes) = (match &record {
            Some(record) => self.toc_bytes(record).await?,
            None => None,
        }) else {
            return Ok(None);
        };
        let toc = tokio::task::spawn_blocking(move || Toc::decode_shared(&bytes))
            .await
            .expect("decoding does not panic");
        match toc {
            Ok(toc) => {
                self.memory.put(id, toc.clone());
                Ok(Some(toc))
            }
            Err(error) => {
                tracing::warn!(layer = %id, %error, "a stored table of contents is damaged; the layer is made again");
                Ok(None)
            }
        }
    }

    /// The encoded table of contents of a recorded layer.
    pub async fn toc_bytes(
        &self,
        record: &LayerRecord,
    ) -> Result<Option<bytes::Bytes>, LayersError> {
        match record.toc {
            Some(digest) => {
                Ok(
                    buildyard_cas::read_all(self.blobs.as_ref(), digest, MAX_ENCODED as u64)
                        .await?,
                )
            }
            None => Ok(None),
        }
    }

    /// A layer's record.
    pub async fn record(&self, id: LayerId) -> Result<Option<LayerRecord>, LayersError> {
        Ok(self.store.layers(&[id]).await?.pop().flatten())
    }

    /// Whether the bytes of every layer of these results can be had.
    pub async fn all_known(&self, chains: &[Chain]) -> Result<bool, LayersError> {
        let layers: HashSet<LayerId> = chains.iter().flat_map(Chain::layers).copied().collect();
        let layers: Vec<LayerId> = layers.into_iter().collect();
        Ok(self.gone(&layers).await?.is_empty())
    }

    /// Which of these layers are not recorded, or have no bytes any more. Those of the others lie here, are on their way
    /// from the worker that made them, or can be pulled again.
    pub async fn gone(&self, layers: &[LayerId]) -> Result<HashSet<LayerId>, LayersError> {
        if layers.is_empty() {
            return Ok(HashSet::new());
        }
        let records = self.store.layers(layers).await?;
        let mut gone = HashSet::new();
        let mut lost = Vec::new();
        for (&layer, record) in layers.iter().zip(records) {
            let Some(record) = record else {
                gone.insert(layer);
                continue;
            };
            let to_be_here = record.pulled.is_none() && record.published;
            if to_be_here && !self.bytes_are_here(&record)? {
                tracing::warn!(%layer, "the bytes of a layer are missing; what contains it is built again");
                lost.push(layer);
            }
        }
        if !lost.is_empty() {
            self.store.remove_layers(&lost).await?;
            for layer in &lost {
                self.memory.forget(layer);
            }
        }
        gone.extend(lost);
        Ok(gone)
    }

    fn bytes_are_here(&self, record: &LayerRecord) -> io::Result<bool> {
        for (flat, bytes) in &record.flats {
            if *bytes > 0
                && !self.flats.has(*flat)?
                && !self.flats.sparse_path(*flat).try_exists()?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The ranges that a table of contents names and that are not on this machine.
    pub fn missing(&self, toc: &Toc) -> Result<NamedRanges, LayersError> {
        Ok(self.flats.missing_of(toc)?)
    }

    /// Drops what is kept in memory only.
    pub fn forget_memory(&self) {
        self.memory.clear();
    }
}
