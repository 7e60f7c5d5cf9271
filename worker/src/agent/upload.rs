//! Publishing finished layers, in the background: no build waits for it, and the step counts as finished for the farm once
//! it is done.

use std::sync::Arc;
use std::time::Duration;

use buildyard_layer::{FlatFiles, Toc, pieces, ranges_of, read_piece};
use buildyard_model::{FlatId, LayerId};
use buildyard_proto::v1 as proto;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::cache::Using;
use super::link::out_of_reach;
use super::machine::Machine;

/// How often an upload that the coordinator refuses is tried. While it is out of reach, tries do not count.
const TRIES: usize = 5;
/// How many layers are published at once.
pub(super) const AT_ONCE: usize = 4;
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Begins to publish the layers of a step, unless the coordinator has their bytes already.
pub(super) fn publish(
    machine: &Arc<Machine>,
    claim: proto::HeldClaim,
    layers: Vec<(LayerId, Arc<Toc>)>,
    using: Using,
) {
    if machine.layers.are_shared() {
        return;
    }
    let using = Arc::new(using);
    for (layer, toc) in layers {
        let (machine, claim) = (machine.clone(), claim.clone());
        let using = using.clone();
        let uploads = machine.uploads.clone();
        uploads.spawn(async move {
            // They stay until they are published.
            let _using = using;
            let Ok(_slot) = machine.upload_slots.acquire().await else {
                return;
            };
            for (flat, ranges) in ranges_of(&toc) {
                if let Err(error) = publish_flat(&machine, &claim, layer, flat, ranges).await {
                    tracing::warn!(%layer, %flat, %error, "a layer could not be published; losing this worker loses it");
                    return;
                }
            }
        });
    }
}

async fn publish_flat(
    machine: &Machine,
    claim: &proto::HeldClaim,
    layer: LayerId,
    flat: FlatId,
    ranges: Vec<std::ops::Range<u64>>,
) -> Result<(), tonic::Status> {
    let mut refusals = 0;
    let mut pause = Duration::from_millis(50);
    loop {
        let pieces = messages(machine.layers.flats().clone(), flat, ranges.clone());
        let (claim, flat, layer) = (claim.clone(), flat.to_string(), layer.to_string());
        let head = proto::WriteFlatRequest {
            flat,
            claim: Some(claim),
            layer,
            chunk: None,
        };
        let messages = tokio_stream::StreamExt::chain(tokio_stream::once(head), pieces);
        let mut client = machine.link.client();
        let sent = tokio::select! {
            sent = client.write_flat(messages) => sent,
            () = machine.link.stopped() => return Err(tonic::Status::cancelled("the worker is stopping")),
        };
        match sent {
            Ok(_) => return Ok(()),
            Err(status) if out_of_reach(&status) => {}
            Err(status) if status.code() == tonic::Code::Aborted && refusals < TRIES => {
                refusals += 1
            }
            Err(status) => return Err(status),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn messages(
    flats: FlatFiles,
    flat: FlatId,
    ranges: Vec<std::ops::Range<u64>>,
) -> ReceiverStream<proto::WriteFlatRequest> {
    let (sender, receiver) = mpsc::channel(4);
    tokio::task::spawn_blocking(move || {
        for (offset, length) in pieces(ranges) {
            let Ok(data) = read_piece(&flats, flat, offset, length) else {
                return;
            };
            let chunk = Some(proto::FlatChunk {
                offset,
                data: data.into(),
            });
            let message = proto::WriteFlatRequest {
                chunk,
                ..proto::WriteFlatRequest::default()
            };
            if sender.blocking_send(message).is_err() {
                return;
            }
        }
    });
    ReceiverStream::new(receiver)
}
