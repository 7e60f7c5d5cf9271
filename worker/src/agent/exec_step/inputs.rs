//! A step's inputs, made ready to mount and mounted.

use std::sync::Arc;

use anyhow::Context;
use buildyard_layer::{Toc, Tree, UnpackError, unpack};
use buildyard_model::{Chain, FlatId, LayerId};
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
use crate::snapshots::{LayerContent, Mounts, SnapshotError, Snapshotter, UpperDir};

/// How often a chain is made ready again because a layer of it was removed before it was mounted.
const TRIES: usize = 3;

/// A chain whose layers are ready on this machine.
pub(super) struct Ready {
    pub(super) chain: Chain,
    pub(super) tree: Arc<Tree>,
    /// The layers, and what is read while they are mounted, stay as long as this does.
    pub(super) using: Vec<Using>,
}

/// Makes a chain ready and says what to mount; with a directory for changes if it is to be `writable`.
pub(super) async fn mounted(
    machine: &Arc<Machine>,
    job: &Job,
    step: &JobStep,
    chain: &Chain,
    snapshots: &Arc<dyn Snapshotter>,
    writable: bool,
) -> Result<(Ready, Option<UpperDir>, Mounts), StepError> {
    for left in (0..TRIES).rev() {
        let ready = ready(machine, job, step, chain, snapshots).await?;
        let (snapshots, layers) = (snapshots.clone(), chain.layers().to_vec());
        let prepared = tokio::task::spawn_blocking(move || {
            let upper = writable.then(|| snapshots.new_upper(&layers)).transpose()?;
            let mounts = snapshots.mounts(&layers, upper.as_ref())?;
            Ok((upper, mounts))
        });
        match prepared.await.expect("preparing does not panic") {
            Ok((upper, mounts)) => return Ok((ready, upper, mounts)),
            Err(SnapshotError::Missing(layer)) if left > 0 => {
                tracing::debug!(%layer, "a layer was removed before it was mounted");
            }
            Err(error) => {
                let error = anyhow::Error::from(error);
                return Err(error.context("preparing the step's file system").into());
            }
        }
    }
    unreachable!("the last try returns")
}

/// Brings every layer of a chain here and makes it ready.
async fn ready(
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
    let tree = tree(machine, step, chain, &tocs).await?;
    let mut using = vec![machine.cache.using_layers(chain.layers()).await];
    if snapshots.reads_flats() {
        let flats = tree.layers().iter().flat_map(|toc| toc.flats.clone());
        let flats: Vec<FlatId> = flats.collect();
        using.push(machine.cache.using_flats(flats).await);
    }
    let end = chain.layers().len();
    let first = missing(snapshots, chain).await.unwrap_or(end);
    let _held = fetch(machine, job, step, &chain.layers()[first..]).await?;
    // Each round makes one layer ready. What is removed meanwhile is noticed when it is mounted.
    for _ in first..end {
        let Some(at) = missing(snapshots, chain).await else {
            break;
        };
        let below = &tree.layers()[..at];
        unpacked(machine, job, step, &chain.layers()[..=at], below, snapshots).await?;
        machine.cache.grown();
    }
    Ok(Ready {
        chain: chain.clone(),
        tree,
        using,
    })
}

/// The index of the lowest layer that is not ready.
async fn missing(snapshots: &Arc<dyn Snapshotter>, chain: &Chain) -> Option<usize> {
    let (snapshots, layers) = (snapshots.clone(), chain.layers().to_vec());
    tokio::task::spawn_blocking(move || snapshots.missing(&layers))
        .await
        .expect("looking does not panic")
}

/// Brings the bytes of layers here, some side by side. They stay as long as the answer lives.
async fn fetch(
    machine: &Machine,
    job: &Job,
    step: &JobStep,
    layers: &[LayerId],
) -> Result<Vec<(Arc<Toc>, Using)>, StepError> {
    let fetched: Vec<_> = layers.iter().map(|id| here(machine, job, *id)).collect();
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

/// Makes the last layer of `chain` ready over the others. Bytes that are damaged are thrown away and had again; where that
/// cannot be, the layer is lost and the farm makes it anew.
async fn unpacked(
    machine: &Arc<Machine>,
    job: &Job,
    step: &JobStep,
    chain: &[LayerId],
    below: &[Arc<Toc>],
    snapshots: &Arc<dyn Snapshotter>,
) -> Result<(), StepError> {
    let id = *chain.last().expect("the caller has a layer");
    for again in [true, false] {
        let here = here(machine, job, id).await;
        let (toc, _using) = here.map_err(|error| tocs_failure(step, error))?;
        let Err(error) = fill(machine, chain, &toc, below, snapshots).await else {
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
    below: &[Arc<Toc>],
    snapshots: &Arc<dyn Snapshotter>,
) -> Result<(), SnapshotError> {
    let (snapshots, flats) = (snapshots.clone(), machine.layers.flats().clone());
    let (chain, toc, below) = (chain.to_vec(), toc.clone(), below.to_vec());
    let filled = tokio::task::spawn_blocking(move || {
        let fill = |dir: &std::path::Path| Ok(unpack(&toc, &flats, dir)?);
        let content = LayerContent {
            toc: &toc,
            below: &below,
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
