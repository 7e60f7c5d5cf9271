//! A step's inputs, made ready to mount.

use std::sync::Arc;

use anyhow::Context;
use buildyard_layer::{Toc, Tree, UnpackError, unpack};
use buildyard_model::{Chain, LayerId};
use buildyard_solver::{LAYERS_AT_ONCE, TocsError};
use futures::stream::{self, StreamExt, TryStreamExt};

use super::StepError;
use crate::agent::cache::Using;
use crate::agent::failure;
use crate::agent::job::Job;
use crate::agent::layers::JobTocs;
use crate::agent::machine::Machine;
use crate::agent::spec::JobStep;
use crate::agent::step::tocs_failure;
use crate::snapshots::{LayerContent, SnapshotError, Snapshotter};

/// A chain whose layers are unpacked on this machine.
pub(super) struct Ready {
    pub(super) chain: Chain,
    pub(super) tree: Arc<Tree>,
    /// The layers stay as long as this does.
    pub(super) using: Using,
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
    let using = machine.cache.using_layers(&chain.0).await;
    let _held = fetch(machine, job, step, chain, snapshots).await?;
    for end in 1..=chain.0.len() {
        if snapshots.has(&chain.0[..end]) {
            continue;
        }
        unpacked(machine, job, step, &chain.0[..end], snapshots).await?;
        machine.cache.grown();
    }
    let tree = tree(machine, step, chain, &tocs).await?;
    Ok(Ready {
        chain: chain.clone(),
        tree,
        using,
    })
}

/// Brings the bytes of the layers here that are not unpacked, some side by side. They stay as long as the answer lives.
async fn fetch(
    machine: &Machine,
    job: &Job,
    step: &JobStep,
    chain: &Chain,
    snapshots: &Arc<dyn Snapshotter>,
) -> Result<Vec<(Arc<Toc>, Using)>, StepError> {
    let missing = (1..=chain.0.len()).filter(|end| !snapshots.has(&chain.0[..*end]));
    let fetched: Vec<_> = missing
        .map(|end| here(machine, job, chain.0[end - 1]))
        .collect();
    let fetched = stream::iter(fetched).buffer_unordered(LAYERS_AT_ONCE);
    let held = fetched.try_collect().await;
    held.map_err(|error| tocs_failure(step, error).into())
}

/// A layer with all its bytes on this machine, as long as the second value lives.
async fn here(machine: &Machine, job: &Job, id: LayerId) -> Result<(Arc<Toc>, Using), TocsError> {
    let toc = machine.layers.toc(&job.spec.id, id).await?;
    let using = machine.cache.using_flats(toc.flats.iter().copied()).await;
    let toc = machine.layers.present(&job.spec.id, id).await?;
    Ok((toc, using))
}

/// Unpacks the last layer of `chain`. Bytes that are damaged are thrown away and had again; where that cannot be, the layer
/// is lost and the farm makes it anew.
async fn unpacked(
    machine: &Arc<Machine>,
    job: &Job,
    step: &JobStep,
    chain: &[LayerId],
    snapshots: &Arc<dyn Snapshotter>,
) -> Result<(), StepError> {
    let id = *chain.last().expect("the caller has a layer");
    for again in [true, false] {
        let here = here(machine, job, id).await;
        let (toc, _using) = here.map_err(|error| tocs_failure(step, error))?;
        let Err(error) = fill(machine, chain, &toc, snapshots).await else {
            return Ok(());
        };
        let Some(damage) = damage(&error) else {
            return Err(anyhow::Error::from(error)
                .context(format!("unpacking layer {id}"))
                .into());
        };
        tracing::warn!(layer = %id, damage, "the bytes of a layer cannot be used");
        let discarded = machine.layers.discard(id, &toc);
        if !(discarded.context("removing a damaged flat file")? && again) {
            let message = format!("layer {id} is lost: {damage}");
            return Err(failure::of_lost_layer(step.step.digest, id, message).into());
        }
    }
    unreachable!("the second try returns")
}

async fn fill(
    machine: &Machine,
    chain: &[LayerId],
    toc: &Arc<Toc>,
    snapshots: &Arc<dyn Snapshotter>,
) -> Result<(), SnapshotError> {
    let (snapshots, flats) = (snapshots.clone(), machine.layers.flats().clone());
    let (chain, toc) = (chain.to_vec(), toc.clone());
    let filled = tokio::task::spawn_blocking(move || {
        let fill = |dir: &std::path::Path| Ok(unpack(&toc, &flats, dir)?);
        let content = LayerContent {
            toc: &toc,
            unpack: &fill,
        };
        snapshots.ensure(&chain, &content)
    });
    filled.await.expect("unpacking does not panic")
}

/// What is wrong with a layer's bytes, if that is why it could not be unpacked.
fn damage(error: &SnapshotError) -> Option<String> {
    let SnapshotError::Fill { source, .. } = error else {
        return None;
    };
    match source.downcast_ref::<UnpackError>()? {
        damaged @ UnpackError::Damaged { .. } => Some(damaged.to_string()),
        UnpackError::Read { path, source } => {
            Some(format!("the bytes of {path:?} cannot be read: {source}"))
        }
        UnpackError::Io { .. } => None,
    }
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
