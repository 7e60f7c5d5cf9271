//! What a job needs of its worker beside the platform: bytes that it reads, networks.

use std::collections::BTreeMap;

use buildyard_llb::Graph;
use buildyard_llb::pb::{self, op::Op};
use buildyard_model::{LayerId, Mark};
use buildyard_proto::{decode_result, v1 as proto};
use buildyard_scheduler::{Input, WantedNetworks};
use buildyard_store::LayerRecord;

/// The layers that a job's known inputs consist of.
pub(super) fn layers(order: &proto::StartJob) -> Vec<LayerId> {
    let results = order.known.iter().filter_map(|known| known.result.as_ref());
    let chains = results.filter_map(|result| decode_result(result).ok());
    let mut layers: Vec<LayerId> = chains
        .flatten()
        .flat_map(|chain| chain.layers().to_vec())
        .collect();
    layers.sort_unstable();
    layers.dedup();
    layers
}

/// What reading these layers takes: a worker may have them unpacked, or only the flat files that they point into. A pulled
/// layer that nobody has read yet counts as much as its compressed form.
pub(super) fn inputs(records: &[LayerRecord]) -> Vec<Input> {
    let mut inputs: BTreeMap<Mark, u64> = BTreeMap::new();
    let mut add = |mark: Mark, bytes: u64| {
        let sum = inputs.entry(mark).or_default();
        *sum = sum.saturating_add(bytes);
    };
    for record in records {
        let named: u64 = record.flats.iter().map(|(_, bytes)| bytes).sum();
        let compressed = record.pulled.as_ref().map_or(0, |pulled| pulled.size);
        add(record.id.into(), if named > 0 { named } else { compressed });
        for (flat, bytes) in &record.flats {
            add((*flat).into(), *bytes);
        }
    }
    let inputs = inputs.into_iter();
    inputs.map(|(mark, bytes)| Input { mark, bytes }).collect()
}

/// The networks of the steps `numbers`.
pub(super) fn networks(graph: &Graph, numbers: &[usize]) -> WantedNetworks {
    let mut wanted = WantedNetworks::default();
    for &number in numbers {
        if let Some(Op::Exec(exec)) = &graph.step(number).op.op {
            wanted.default |= exec.network() == pb::NetMode::Unset;
            wanted.host |= exec.network() == pb::NetMode::Host;
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use buildyard_model::{Digest, FlatId};
    use buildyard_store::{Pulled, UnixMillis};

    use super::*;

    fn record(name: &str, flats: &[(FlatId, u64)], pulled: Option<u64>) -> LayerRecord {
        LayerRecord {
            id: LayerId(Digest::of(name)),
            toc: None,
            toc_size: 0,
            flats: flats.to_vec(),
            pulled: pulled.map(|size| Pulled {
                blob: Digest::of("blob"),
                size,
                media_type: String::new(),
                sources: Vec::new(),
            }),
            made_by: None,
            published: true,
            created: UnixMillis(0),
        }
    }

    #[test]
    fn layers_and_their_flat_files_count() {
        let (pack, base) = (FlatId::from_bytes([7; 32]), Digest::of("base"));
        let records = [
            record("unread", &[], Some(50)),
            record("base", &[(base.into(), 900)], Some(300)),
            record("a", &[(pack, 5)], None),
            record("b", &[(pack, 6)], None),
        ];
        let inputs = inputs(&records);
        let of = |mark: Mark| {
            inputs
                .iter()
                .find(|input| input.mark == mark)
                .map(|input| input.bytes)
        };
        assert_eq!(of(LayerId(Digest::of("unread")).into()), Some(50));
        // Its flat file has its mark.
        assert_eq!(of(LayerId(base).into()), Some(1800));
        assert_eq!(of(LayerId(Digest::of("a")).into()), Some(5));
        assert_eq!(of(pack.into()), Some(11));
        assert_eq!(inputs.len(), 5);
    }
}
