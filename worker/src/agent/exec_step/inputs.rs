//! A step's inputs, made ready to mount.

use std::sync::Arc;

use anyhow::Context;
use buildyard_layer::{Tree, unpack};
use buildyard_model::Chain;

use super::StepError;
use crate::agent::job::Job;
use crate::agent::layers::JobTocs;
use crate::agent::machine::Machine;
use crate::agent::spec::JobStep;
use crate::agent::step::tocs_failure;
use crate::snapshots::{LayerContent, Snapshotter};

/// A chain whose layers are unpacked on this machine.
pub(super) struct Ready {
    pub(super) chain: Chain,
    pub(super) tree: Arc<Tree>,
}

/// Brings every layer of a chain here and unpacks it.
pub(super) async fn ready(
    machine: &Arc<Machine>,
    job: &Job,
    step: &JobStep,
    chain: &Chain,
    snapshots: &Arc<dyn Snapshotter>,
) -> Result<Ready, StepError> {
    let tocs = JobTocs {
        layers: &machine.layers,
        job: &job.spec.id,
    };
    let held = snapshots.holds();
    for end in 1..=chain.0.len() {
        let id = chain.0[end - 1];
        if held.iter().any(|(layer, _)| *layer == id) {
            continue;
        }
        let toc = machine
            .layers
            .present(&job.spec.id, id)
            .await
            .map_err(|error| tocs_failure(step, error))?;
        let (snapshots, flats) = (snapshots.clone(), machine.layers.flats().clone());
        let part = chain.0[..end].to_vec();
        let filled = tokio::task::spawn_blocking(move || {
            let fill = |dir: &std::path::Path| Ok(unpack(&toc, &flats, dir)?);
            snapshots.ensure(
                &part,
                &LayerContent {
                    toc: &toc,
                    unpack: &fill,
                },
            )
        });
        filled
            .await
            .expect("unpacking does not panic")
            .with_context(|| format!("unpacking layer {id}"))?;
    }
    let tree = tree(machine, step, chain, &tocs).await?;
    Ok(Ready {
        chain: chain.clone(),
        tree,
    })
}

async fn tree(
    machine: &Machine,
    step: &JobStep,
    chain: &Chain,
    tocs: &JobTocs<'_>,
) -> Result<Arc<Tree>, StepError> {
    match machine.trees.tree(chain, tocs).await {
        Ok(Some(tree)) => Ok(tree),
        Ok(None) => Err(anyhow::anyhow!("a layer's table of contents could not be made").into()),
        Err(error) => Err(tocs_failure(step, error).into()),
    }
}
