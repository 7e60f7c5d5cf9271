//! Flat files on the wire, on the coordinator's side.

use std::io;
use std::ops::Range;

use buildyard_layer::{open_piece, pieces, ranges_of, read_piece};
use buildyard_model::{FlatId, LayerId};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{LayerStore, LayersError};

/// Pieces read ahead of a slow receiver.
const AHEAD: usize = 4;

impl LayerStore {
    /// Reads ranges that are here, as compressed pieces with their offsets.
    pub fn read_chunks(
        &self,
        flat: FlatId,
        ranges: Vec<Range<u64>>,
    ) -> ReceiverStream<io::Result<(u64, Vec<u8>)>> {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let flats = self.flats.clone();
        tokio::task::spawn_blocking(move || {
            for (offset, length) in pieces(ranges) {
                let piece = read_piece(&flats, flat, offset, length).map(|data| (offset, data));
                let failed = piece.is_err();
                if sender.blocking_send(piece).is_err() || failed {
                    return;
                }
            }
        });
        ReceiverStream::new(receiver)
    }

    /// Keeps one compressed piece of a flat file that `layer` names.
    pub async fn write_chunk(
        &self,
        layer: LayerId,
        flat: FlatId,
        offset: u64,
        data: impl AsRef<[u8]> + Send + 'static,
    ) -> Result<(), LayersError> {
        let toc = self.toc(layer).await?.ok_or(LayersError::Unknown(layer))?;
        let flats = self.flats.clone();
        tokio::task::spawn_blocking(move || {
            let bytes = open_piece(data.as_ref())?;
            let end = offset.saturating_add(bytes.len() as u64);
            let inside = ranges_of(&toc).iter().any(|(named, ranges)| {
                *named == flat
                    && ranges
                        .iter()
                        .any(|range| range.start <= offset && end <= range.end)
            });
            if !inside {
                return Err(LayersError::OutsideOfLayer(flat));
            }
            Ok(flats.write_range(flat, offset, &bytes)?)
        })
        .await
        .expect("writing does not panic")
    }
}
