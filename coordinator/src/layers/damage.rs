//! Layers whose bytes turn out to be missing or damaged: what is damaged is thrown away, what contains it is a miss.

use std::io;

use buildyard_layer::{DigestReader, FileReader, FlatFiles, Kind, Toc};
use buildyard_model::{FlatId, LayerId};

use super::{LayerStore, LayersError};

impl LayerStore {
    /// Somebody could not use the bytes of a layer. Its flat files are read again, and those that are damaged are removed.
    /// A layer of an image is pulled again when it is next needed; of any other one nothing is left, so that whatever
    /// contains it is a miss from now on.
    pub async fn lost(&self, id: LayerId) -> Result<(), LayersError> {
        tracing::warn!(layer = %id, "a layer is lost; what contains it is built again");
        let record = self.record(id).await?;
        if let Some(toc) = self.toc(id).await? {
            let flats = self.flats.clone();
            let damaged = tokio::task::spawn_blocking(move || damaged(&toc, &flats))
                .await
                .expect("reading does not panic");
            for flat in damaged {
                tracing::warn!(layer = %id, %flat, "a damaged flat file is removed");
                self.flats.remove(flat)?;
            }
        }
        self.memory.forget(&id);
        if record.is_some_and(|record| record.pulled.is_none()) {
            self.store.remove_layers(&[id]).await?;
        }
        Ok(())
    }
}

/// The flat files with the bytes of files that are not what the TOC says, and those that were cut off, if only behind the last
/// file. What is not here is not damaged.
fn damaged(toc: &Toc, flats: &FlatFiles) -> Vec<FlatId> {
    let missing = flats.missing_of(toc).unwrap_or_default();
    let missing = missing.into_iter().map(|(flat, _)| flat);
    let mut damaged: Vec<FlatId> = missing
        .filter(|flat| flats.has(*flat).unwrap_or(false))
        .collect();
    for entry in &toc.entries {
        let Kind::File {
            content, extents, ..
        } = &entry.kind
        else {
            continue;
        };
        let Some(reader) = FileReader::of_entry(flats, toc, entry) else {
            continue;
        };
        let sound = match DigestReader::new(reader).finish() {
            Ok((found, _)) => found == *content,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        if !sound {
            let flats = extents
                .iter()
                .filter_map(|extent| toc.flats.get(extent.flat as usize));
            damaged.extend(flats.copied());
        }
    }
    damaged.sort();
    damaged.dedup();
    damaged
}
