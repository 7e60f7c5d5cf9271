//! Flat files on the wire: pieces of a few hundred kilobytes, each one zstd frame.

use std::io;
use std::ops::Range;

use buildyard_layer::{ExtentSource, ranges_of};
use buildyard_model::{FlatId, LayerId};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{LayerStore, LayersError};

/// Uncompressed size of a piece.
const PIECE: u64 = 512 << 10;
/// zstd's level on the wire: fast enough for a local network.
const LEVEL: i32 = 1;
/// Pieces read ahead of a slow receiver.
const AHEAD: usize = 4;

impl LayerStore {
    /// Reads ranges that are here, as compressed pieces with their offsets.
    pub fn read_chunks(
        &self,
        flat: FlatId,
        ranges: Vec<Range<u64>>,
    ) -> ReceiverStream<io::Result<(u64, Vec<u8>)>> {
        let (pieces, receiver) = mpsc::channel(AHEAD);
        let flats = self.flats.clone();
        tokio::task::spawn_blocking(move || {
            for range in ranges {
                let mut at = range.start;
                while at < range.end {
                    let length = PIECE.min(range.end - at);
                    let piece = read_piece(&flats, flat, at, length);
                    let failed = piece.is_err();
                    if pieces.blocking_send(piece.map(|data| (at, data))).is_err() || failed {
                        return;
                    }
                    at += length;
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
            let bytes = zstd::bulk::decompress(data.as_ref(), PIECE as usize)?;
            let end = offset.saturating_add(bytes.len() as u64);
            let named = ranges_of(&toc);
            let inside = named.iter().any(|(named, ranges)| {
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

fn read_piece(
    flats: &impl ExtentSource,
    flat: FlatId,
    offset: u64,
    length: u64,
) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).expect("a piece is small")];
    flats.read_at(flat, offset, &mut bytes)?;
    zstd::bulk::compress(&bytes, LEVEL)
}
