//! Running a program: inputs made ready, mounts put together, a container run, what it left made a layer.

mod caches;
mod executor;
mod inputs;
mod mounts;
mod outcome;
mod process;

use std::sync::Arc;

use anyhow::Context;
use buildyard_layer::FlatFiles;
use buildyard_llb::pb;
use buildyard_model::{Chain, Platform};
use buildyard_proto::v1::{self as proto, step_event};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::failure::{self, Failure};
use super::job::Job;
use super::machine::Machine;
use super::spec::JobStep;
use super::step::{Made, started};
use caches::{Taken, Wanted};
use mounts::Prepared;
use outcome::Succeeded;

use crate::network::StepNetwork;
use crate::runner::Runner;
use crate::runner::{Chunk, ContainerSpec, OutputLimits, Security, StepIo, Stream};

pub(super) use executor::{Executor, ExecutorConfig};

/// Chunks of output between the container and the coordinator.
const OUTPUT_CHUNKS: usize = 64;

/// Why a step did not come to its end.
pub(super) enum StepError {
    /// In the form in which the coordinator hears of it.
    Failure(Failure),
    /// This machine failed.
    Machine(anyhow::Error),
}

impl From<Failure> for StepError {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<anyhow::Error> for StepError {
    fn from(error: anyhow::Error) -> Self {
        Self::Machine(error)
    }
}

/// Runs an exec operation.
pub(super) async fn run(
    machine: &Arc<Machine>,
    job: &Arc<Job>,
    step: &JobStep,
    exec: &pb::ExecOp,
    inputs: &[Chain],
    stop: &CancellationToken,
    flats: &FlatFiles,
) -> Result<Made, Failure> {
    // What it waits for is all waited for before it runs: its cache mounts, then a slot.
    let wait = async {
        let caches = take_caches(machine, step, exec, inputs).await?;
        let permit = machine.slots.take(|place| tell(machine, job, step, place));
        Ok::<_, StepError>((caches, permit.await))
    };
    let waited = tokio::select! {
        waited = wait => waited,
        () = stop.cancelled() => return Err(failure::cancelled(step.step.digest)),
    };
    let outcome = async {
        let (caches, _permit) = waited?;
        let (succeeded, prepared, emulated_by) =
            execute(machine, job, step, exec, inputs, caches, stop).await?;
        succeeded
            .finish(machine, flats, prepared, emulated_by)
            .await
    };
    let outcome = outcome.await;
    outcome.map_err(|error| match error {
        StepError::Failure(failure) => failure,
        StepError::Machine(error) => failure::of_worker(step.step.digest, &error),
    })
}

/// Has a step's log say something.
async fn tell(machine: &Machine, job: &Job, step: &JobStep, text: String) {
    let log = proto::StepLog {
        stream: 2,
        data: text.into_bytes().into(),
    };
    machine
        .link
        .step_event(
            &job.spec.id,
            &step.step.digest.to_string(),
            step_event::Event::Log(log),
        )
        .await;
}

async fn take_caches(
    machine: &Machine,
    step: &JobStep,
    exec: &pb::ExecOp,
    inputs: &[Chain],
) -> Result<Taken, StepError> {
    let Some(executor) = &machine.executor else {
        return Ok(Taken::default());
    };
    let wanted = Wanted::of(exec, inputs, &platform(step));
    let taken = executor.caches.take(wanted).await;
    Ok(taken.context("taking the step's cache mounts")?)
}

fn platform(step: &JobStep) -> Platform {
    step.step.platform.clone().unwrap_or_else(Platform::native)
}

/// Runs the command. Returns what it left, if it succeeded, and what emulated it.
async fn execute(
    machine: &Arc<Machine>,
    job: &Arc<Job>,
    step: &JobStep,
    exec: &pb::ExecOp,
    inputs: &[Chain],
    caches: Taken,
    stop: &CancellationToken,
) -> Result<(Succeeded, Prepared, String), StepError> {
    let refuse = |text: String| StepError::Failure(failure::of_step(step.step.digest, text, 0));
    let executor = machine
        .executor
        .as_ref()
        .ok_or_else(|| anyhow::anyhow!("this worker executes nothing"))?;
    let platform = platform(step);
    let emulator = executor
        .emulator(&platform)
        .ok_or_else(|| anyhow::anyhow!("this worker cannot run {platform}"))?;
    let emulated_by = emulator.map(executor::describe).unwrap_or_default();
    if exec.security() == pb::SecurityMode::Insecure {
        return Err(refuse(
            "security.insecure is not allowed on this farm".to_owned(),
        ));
    }
    let network = network(machine, job, executor, exec).map_err(&refuse)?;
    let meta = exec.meta.clone().unwrap_or_default();
    if !meta.cgroup_parent.is_empty() {
        let text = "a parent of the step's control group (exec.meta.cgroup.parent) is not supported on this farm";
        return Err(refuse(text.to_owned()));
    }
    started(machine, job, step, &emulated_by).await;
    let mut prepared = mounts::prepare(
        machine, job, step, executor, exec, inputs, &platform, caches,
    )
    .await?;
    let names = prepared.names(machine).await?;
    let mut process = process::process(&meta, &names).map_err(|error| refuse(error.to_string()))?;
    process::add_secrets(machine, job, exec, &mut process)
        .await
        .map_err(&refuse)?;
    let mut spec = ContainerSpec {
        id: format!("step-{}", hex::encode(rand::random::<[u8; 8]>())),
        root: prepared.root.clone(),
        read_only_root: prepared.read_only_root,
        mounts: std::mem::take(&mut prepared.mounts),
        process,
        hostname: if meta.hostname.is_empty() {
            "buildkitsandbox".to_owned()
        } else {
            meta.hostname.clone()
        },
        hosts: process::hosts(&meta),
        resolv_conf: process::resolv_conf(&network),
        network,
        security: Security::Sandbox,
        limits: executor.limits.clone(),
        user_namespace: None,
    };
    if let Some(emulator) = emulator {
        emulator.apply(&mut spec);
    }
    let (output, chunks) = mpsc::channel(OUTPUT_CHUNKS);
    let io = StepIo {
        output,
        limits: OutputLimits::default(),
    };
    let running = executor.runner.run(spec, io, stop.clone());
    let (ran, ()) = tokio::join!(running, pass_on(machine, job, step, chunks));
    Ok((
        outcome::judge(step, &meta, &executor.limits, ran)?,
        prepared,
        emulated_by,
    ))
}

/// The network that an operation asks for. Who may have the machine's is decided before a step comes here; a worker does not
/// rely on it.
fn network(
    machine: &Machine,
    job: &Job,
    executor: &Executor,
    exec: &pb::ExecOp,
) -> Result<StepNetwork, String> {
    match exec.network() {
        pb::NetMode::None => Ok(StepNetwork::None),
        pb::NetMode::Host if job.spec.allow_host_network && machine.allow_host_network => {
            Ok(StepNetwork::Host)
        }
        pb::NetMode::Host => Err(
            "network.host is not allowed: it needs --allow network.host of the client and --allow-host-network of the worker"
                .to_owned(),
        ),
        pb::NetMode::Unset => Ok(executor.network()),
    }
}

/// Passes a step's output on to the coordinator.
async fn pass_on(machine: &Machine, job: &Job, step: &JobStep, mut chunks: mpsc::Receiver<Chunk>) {
    let digest = step.step.digest.to_string();
    while let Some(chunk) = chunks.recv().await {
        let stream = match chunk.stream {
            Stream::Stdout => 1,
            Stream::Stderr => 2,
        };
        let log = proto::StepLog {
            stream,
            data: chunk.bytes,
        };
        machine
            .link
            .step_event(&job.spec.id, &digest, step_event::Event::Log(log))
            .await;
    }
}
