//! Short names of layers and flat files, for reports of what lies where.

use crate::{FlatId, LayerId};

/// The first eight bytes of a layer's or a flat file's id: enough wherever taking one for another costs a worse choice and
/// nothing more. The flat file of a pulled layer has the layer's mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark(pub u64);

impl From<LayerId> for Mark {
    fn from(layer: LayerId) -> Self {
        Self::of(layer.0.as_bytes())
    }
}

impl From<FlatId> for Mark {
    fn from(flat: FlatId) -> Self {
        Self::of(flat.as_bytes())
    }
}

impl Mark {
    fn of(bytes: &[u8; 32]) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = *bytes;
        Self(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Digest;

    #[test]
    fn a_pulled_layer_and_its_flat_file_have_one_mark() {
        let digest = Digest::of("a layer");
        assert_eq!(
            Mark::from(LayerId(digest)),
            Mark::from(FlatId::from(digest))
        );
        let other = LayerId(Digest::of("another"));
        assert_ne!(Mark::from(LayerId(digest)), Mark::from(other));
    }
}
