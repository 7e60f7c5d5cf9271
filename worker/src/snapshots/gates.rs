//! One fill at a time for each layer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use buildyard_model::LayerId;

use super::lock;

/// One lock per layer that is being filled.
#[derive(Default)]
pub(super) struct Gates(Mutex<HashMap<LayerId, Arc<Mutex<()>>>>);

impl Gates {
    /// Runs `fill` when nobody else fills the layer.
    pub(super) fn alone<T>(&self, layer: LayerId, fill: impl FnOnce() -> T) -> T {
        let gate = lock(&self.0).entry(layer).or_default().clone();
        let result = {
            let _turn = lock(&gate);
            fill()
        };
        drop(gate);
        let mut gates = lock(&self.0);
        if gates
            .get(&layer)
            .is_some_and(|gate| Arc::strong_count(gate) == 1)
        {
            gates.remove(&layer);
        }
        result
    }
}
