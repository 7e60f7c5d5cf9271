//! The tables of contents that the coordinator has. It makes none itself: what was never read is left to the workers.

use std::sync::Arc;

use async_trait::async_trait;
use buildyard_layer::Toc;
use buildyard_model::LayerId;
use buildyard_solver::{Tocs, TocsError};

use crate::layers::LayerStore;

/// Tables of contents from the layer store.
pub(super) struct KnownTocs(pub(super) Arc<LayerStore>);

#[async_trait]
impl Tocs for KnownTocs {
    async fn toc(&self, layer: LayerId) -> Result<Option<Arc<Toc>>, TocsError> {
        self.0.toc(layer).await.map_err(|error| TocsError::Failed {
            layer,
            source: Box::new(error),
        })
    }
}
