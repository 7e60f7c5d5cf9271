//! Layers and the bytes behind them, between the shared store and the workers.

use std::time::Duration;

use buildyard_model::{Digest, FlatId, JobId, LayerId};
use buildyard_proto::v1 as proto;
use tokio_stream::{Stream, StreamExt};
use tonic::{Status, Streaming};

use super::Farm;
use super::attach::internal;
use super::convert::{held_from, malformed};
use super::workers::Offer;

/// How long a reader waits for a flat file that its maker is still publishing.
const PUBLISHED_WITHIN: Duration = Duration::from_secs(600);

/// How many layers one look-up may name.
const LAYERS_AT_ONCE: usize = 4096;

pub(super) async fn get_layers(
    farm: &Farm,
    request: proto::GetLayersRequest,
) -> Result<proto::GetLayersReply, Status> {
    if request.layers.len() > LAYERS_AT_ONCE {
        return Err(Status::invalid_argument(format!(
            "at most {LAYERS_AT_ONCE} layers can be asked for at once"
        )));
    }
    let ids: Vec<LayerId> = request
        .layers
        .iter()
        .map(|id| id.parse().map_err(malformed("layer id")))
        .collect::<Result<_, _>>()?;
    let records = farm.store.layers(&ids).await.map_err(internal)?;
    let job = farm.job(&JobId::new(&request.job));
    let mut layers = Vec::with_capacity(ids.len());
    for (id, record) in ids.iter().zip(records) {
        let mut info = proto::LayerInfo {
            id: id.to_string(),
            known: record.is_some(),
            ..Default::default()
        };
        if let Some(record) = record {
            info.toc = farm
                .layers
                .toc_bytes(&record)
                .await
                .map_err(internal)?
                .unwrap_or_default();
            let named = job
                .as_ref()
                .and_then(|job| job.request.host.layer_of_image(*id));
            info.pulled = named.or(record.pulled).map(|pulled| proto::PulledLayer {
                diff_id: id.to_string(),
                digest: pulled.blob.to_string(),
                size: pulled.size,
                media_type: pulled.media_type,
                sources: pulled
                    .sources
                    .iter()
                    .map(|s| format!("{}/{}", s.registry, s.repository))
                    .collect(),
            });
        }
        layers.push(info);
    }
    Ok(proto::GetLayersReply { layers })
}

pub(super) async fn put_pulled(
    farm: &Farm,
    worker: &Offer,
    request: proto::PutPulledLayerRequest,
) -> Result<(), Status> {
    let id: LayerId = request.id.parse().map_err(malformed("layer id"))?;
    let blob: Digest = request.blob.parse().map_err(malformed("blob's digest"))?;
    farm.layers
        .put_pulled_toc(id, blob, &request.toc, worker.shares_flat_files)
        .await
        .map_err(|error| Status::invalid_argument(format!("layer {id} was refused: {error}")))
}

/// Streams ranges of a flat file, waiting for those that are still on their way.
pub(super) async fn read(
    farm: &Farm,
    request: proto::ReadFlatRequest,
) -> Result<impl Stream<Item = Result<proto::FlatChunk, Status>> + Send + use<>, Status> {
    let flat: FlatId = request
        .flat
        .parse()
        .map_err(|error| Status::invalid_argument(format!("{error}")))?;
    let layer: LayerId = request.layer.parse().map_err(malformed("layer id"))?;
    if !request.ranges.len().is_multiple_of(2) {
        return Err(Status::invalid_argument(
            "ranges are pairs of offset and length",
        ));
    }
    let ranges: Vec<_> = request
        .ranges
        .chunks_exact(2)
        .map(|pair| pair[0]..pair[0].saturating_add(pair[1]))
        .collect();
    let deadline = tokio::time::Instant::now() + PUBLISHED_WITHIN;
    loop {
        let changed = farm.changed.notified();
        if farm
            .layers
            .flats()
            .missing(flat, &ranges)
            .map_err(internal)?
            .is_empty()
        {
            break;
        }
        if !farm.layers.is_expected(layer).await.map_err(internal)? {
            return Err(Status::not_found(format!(
                "flat file {flat} is not in the shared store"
            )));
        }
        if tokio::time::timeout_at(deadline, async {
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
        })
        .await
        .is_err()
        {
            return Err(Status::deadline_exceeded(format!(
                "flat file {flat} was not published in time"
            )));
        }
    }
    let chunks = farm.layers.read_chunks(flat, ranges);
    Ok(chunks.map(|chunk| {
        let (offset, data) = chunk.map_err(internal)?;
        Ok(proto::FlatChunk {
            offset,
            data: data.into(),
        })
    }))
}

/// Takes the ranges of a flat file that a claimed step's layer names.
pub(super) async fn write(
    farm: &Farm,
    worker: &Offer,
    mut messages: Streaming<proto::WriteFlatRequest>,
) -> Result<(), Status> {
    let first = messages
        .message()
        .await?
        .ok_or_else(|| Status::invalid_argument("nothing was sent"))?;
    let flat: FlatId = first
        .flat
        .parse()
        .map_err(|error| Status::invalid_argument(format!("{error}")))?;
    let layer: LayerId = first.layer.parse().map_err(malformed("layer id"))?;
    held_from(&first.claim.unwrap_or_default())?;
    if farm.layers.is_published(layer).await.map_err(internal)? {
        return Ok(());
    }
    if !farm
        .layers
        .may_publish(layer, flat, &worker.id)
        .await
        .map_err(internal)?
    {
        return Err(Status::failed_precondition(format!(
            "layer {layer} of worker {} is not waiting for flat file {flat}",
            worker.id
        )));
    }
    let mut next = first.chunk;
    loop {
        if let Some(chunk) = next {
            farm.layers
                .write_chunk(layer, flat, chunk.offset, chunk.data)
                .await
                .map_err(|error| {
                    Status::invalid_argument(format!(
                        "flat file {flat} could not be taken: {error}"
                    ))
                })?;
        }
        match messages.next().await {
            Some(message) => next = message?.chunk,
            None => break,
        }
    }
    // A client that goes away in the middle looks like one that has sent all.
    if !farm.layers.has_all(layer, flat).await.map_err(internal)? {
        return Err(Status::aborted(format!(
            "the upload of flat file {flat} ended before all of it was there; send it again"
        )));
    }
    farm.layers.published(layer).await.map_err(internal)?;
    tracing::debug!(%layer, worker_id = %worker.id, "a layer is published");
    farm.changed.notify_waiters();
    Ok(())
}
