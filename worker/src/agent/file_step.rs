//! File operations and diffs: computed on tables of contents, without a mount and without moving bytes. Only ADD of an
//! archive reads bytes, and only mkfile writes some.

mod actions;
mod owners;
mod prepare;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use buildyard_layer::fileop::FileOpError;
use buildyard_layer::{FlatFiles, Time, Toc, Tree, diff as tree_diff};
use buildyard_llb::pb;
use buildyard_model::Chain;

use super::failure::{self, Failure};
use super::job::Job;
use super::layers::JobTocs;
use super::machine::Machine;
use super::spec::JobStep;
use super::step::{Made, tocs_failure};

/// Why a file step fails.
#[derive(Debug, thiserror::Error)]
enum FileStepError {
    /// What the user asks for cannot be done.
    #[error(transparent)]
    Operation(#[from] FileOpError),
    /// What the user asks for cannot be understood.
    #[error("{0}")]
    Request(String),
    /// This machine failed.
    #[error("{0}")]
    Machine(String, #[source] std::io::Error),
}

/// Runs a file operation.
pub(super) async fn run(
    machine: &Arc<Machine>,
    job: &Arc<Job>,
    step: &JobStep,
    file: &pb::FileOp,
    inputs: &[Chain],
    flats: &FlatFiles,
) -> Result<Made, Failure> {
    let trees = trees(machine, job, step, inputs).await?;
    if file.actions.iter().any(unpacks) {
        bytes_present(machine, job, step, inputs).await?;
    }
    let outcome = attempt(file, &trees, inputs, flats).await;
    let outcome = match outcome {
        // Name files whose bytes are elsewhere: fetched now, and once more.
        Err(FileStepError::Operation(FileOpError::Names { .. }) | FileStepError::Machine(..)) => {
            bytes_present(machine, job, step, inputs).await?;
            machine.trees.clear();
            let trees = self::trees(machine, job, step, inputs).await?;
            attempt(file, &trees, inputs, flats).await
        }
        outcome => outcome,
    };
    match outcome {
        Ok(made) => {
            for (id, toc) in &made.layers {
                machine.layers.remember(*id, toc.clone());
            }
            Ok(made)
        }
        Err(FileStepError::Machine(what, error)) => Err(failure::of_worker(
            step.step.digest,
            &anyhow::Error::from(error).context(what),
        )),
        Err(error) => Err(failure::of_step(step.step.digest, error.to_string(), 0)),
    }
}

async fn attempt(
    file: &pb::FileOp,
    trees: &[Arc<Tree>],
    inputs: &[Chain],
    flats: &FlatFiles,
) -> Result<Made, FileStepError> {
    let flats = flats.clone();
    let (file, trees, inputs) = (file.clone(), trees.to_vec(), inputs.to_vec());
    tokio::task::spawn_blocking(move || actions::run(&file, &trees, &inputs, &flats, now()))
        .await
        .expect("file steps do not panic")
}

fn unpacks(action: &pb::FileAction) -> bool {
    matches!(&action.action, Some(pb::file_action::Action::Copy(copy)) if copy.attempt_unpack_docker_compatibility)
}

/// Runs a diff operation: the layers on top where one chain continues the other, else what is different.
pub(super) async fn diff(
    machine: &Arc<Machine>,
    job: &Arc<Job>,
    step: &JobStep,
    op: &pb::DiffOp,
    inputs: &[Chain],
) -> Result<Made, Failure> {
    let chain = |index: i64| {
        usize::try_from(index)
            .ok()
            .and_then(|i| inputs.get(i))
            .cloned()
            .unwrap_or_default()
    };
    let lower = chain(op.lower.map_or(-1, |lower| lower.input));
    let upper = chain(op.upper.map_or(-1, |upper| upper.input));
    if let Some(rest) = upper.layers().strip_prefix(lower.layers()) {
        return Ok(Made {
            outputs: vec![Chain::new(rest.to_vec())],
            layers: Vec::new(),
            emulator: String::new(),
        });
    }
    let trees = trees(machine, job, step, &[lower, upper]).await?;
    let toc = tokio::task::spawn_blocking(move || Arc::new(tree_diff(&trees[0], &trees[1])))
        .await
        .expect("diffing does not panic");
    Ok(made_one(toc))
}

fn made_one(toc: Arc<Toc>) -> Made {
    let id = toc.layer_id();
    Made {
        outputs: vec![Chain::new(vec![id])],
        layers: vec![(id, toc)],
        emulator: String::new(),
    }
}

async fn trees(
    machine: &Machine,
    job: &Job,
    step: &JobStep,
    chains: &[Chain],
) -> Result<Vec<Arc<Tree>>, Failure> {
    let tocs = JobTocs {
        layers: &machine.layers,
        job: &job.spec.id,
    };
    let mut trees = Vec::with_capacity(chains.len());
    for chain in chains {
        match machine.trees.tree(chain, &tocs).await {
            Ok(Some(tree)) => trees.push(tree),
            Ok(None) => {
                let error = anyhow::anyhow!("an input's table of contents could not be made");
                return Err(failure::of_worker(step.step.digest, &error));
            }
            Err(error) => return Err(tocs_failure(step, error)),
        }
    }
    Ok(trees)
}

async fn bytes_present(
    machine: &Machine,
    job: &Job,
    step: &JobStep,
    chains: &[Chain],
) -> Result<(), Failure> {
    for layer in chains.iter().flat_map(|chain| chain.layers()) {
        machine
            .layers
            .present(&job.spec.id, *layer)
            .await
            .map_err(|error| tocs_failure(step, error))?;
    }
    Ok(())
}

fn now() -> Time {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Time {
        seconds: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
        nanos: now.subsec_nanos(),
    }
}
