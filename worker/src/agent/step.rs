//! One step: its key, its claim, and what the claim says.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use buildyard_layer::{FlatFiles, Toc};
use buildyard_llb::pb::op::Op;
use buildyard_model::{Chain, FlatId, LayerId, StepDigest, StepKey};
use buildyard_proto::v1::{self as proto, claim_reply, complete_request, step_event};
use buildyard_proto::{decode_result, encode_result};
use buildyard_solver::pull::Fault;
use buildyard_solver::{KeyError, TocsError};
use tokio_util::sync::CancellationToken;

use super::board::{Recorded, Recording};
use super::failure::{self, Failure};
use super::job::Job;
use super::layers::JobTocs;
use super::machine::Machine;
use super::spec::JobStep;
use super::step_flats::StepFlats;
use super::{exec_step, file_step, upload};

/// What a step made.
pub(super) struct Made {
    /// One chain per output.
    pub(super) outputs: Vec<Chain>,
    /// The layers that are new.
    pub(super) layers: Vec<(LayerId, Arc<Toc>)>,
    /// The emulator it ran under, if any.
    pub(super) emulator: String,
}

/// What a step builds on.
#[derive(Default)]
struct Inputs {
    chains: Vec<Chain>,
    /// Whether the farm knows them.
    recorded: Vec<Recorded>,
}

/// Evaluates one step of a job, and puts its result on the job's board.
pub(super) async fn evaluate(
    machine: Arc<Machine>,
    job: Arc<Job>,
    number: usize,
) -> Result<(), Failure> {
    let step = &job.spec.steps[number];
    let mut inputs = Inputs::default();
    for (input, output) in &step.inputs {
        let known = job.board.get(*input).await;
        let chain = known.chains.get(*output).cloned();
        inputs.chains.push(chain.unwrap_or_default());
        inputs.recorded.push(known.recorded);
    }
    let key = key(&machine, &job, step, &inputs.chains).await?;
    let task = machine
        .running
        .prepare(claimed(machine.clone(), job.clone(), number, inputs, key));
    match task.await {
        Ok(outcome) => outcome,
        Err(error) => Err(task_died(step, &error)),
    }
}

/// How long an answer to a claim is waited for once its job is not wanted any more.
const LAST_ANSWER: Duration = Duration::from_secs(3);

/// Claims a step, and does what the answer says.
async fn claimed(
    machine: Arc<Machine>,
    job: Arc<Job>,
    number: usize,
    inputs: Inputs,
    key: StepKey,
) -> Result<(), Failure> {
    let step = &job.spec.steps[number];
    let reply = claim(&machine, &job, step, key).await?;
    match reply.answer {
        Some(claim_reply::Answer::Result(result)) => {
            let chains = decode_result(&result)
                .map_err(|e| failure::of_worker(step.step.digest, &e.into()))?;
            ended(&machine, &job, step, true, "").await;
            job.board.set(step.step.digest, chains);
            Ok(())
        }
        Some(claim_reply::Answer::Failure(failure)) => {
            ended(&machine, &job, step, false, &failure.message).await;
            Err(failure)
        }
        Some(claim_reply::Answer::Run(claim)) if job.cancel.is_cancelled() => {
            give_back(&machine, claim, step.step.digest).await;
            Err(failure::cancelled(step.step.digest))
        }
        Some(claim_reply::Answer::Run(claim)) => {
            run_claimed(&machine, &job, number, inputs, claim).await
        }
        None => {
            let error = anyhow::anyhow!("the coordinator sent an empty answer to a claim");
            Err(failure::of_worker(step.step.digest, &error))
        }
    }
}

async fn claim(
    machine: &Machine,
    job: &Job,
    step: &JobStep,
    key: StepKey,
) -> Result<proto::ClaimReply, Failure> {
    let request = proto::ClaimRequest {
        job: job.spec.id.clone(),
        step: step.step.digest.to_string(),
        key: key.to_string(),
    };
    let reply = machine.link.call(|mut client| {
        let request = request.clone();
        async move { client.claim(request).await }
    });
    let given_up = async {
        job.cancel.cancelled().await;
        tokio::time::sleep(LAST_ANSWER).await;
    };
    tokio::select! {
        reply = reply => reply.map_err(|status| claim_refused(step, &status)),
        () = given_up => Err(failure::cancelled(step.step.digest)),
    }
}

/// Gives back a claim that this worker does not run.
pub(super) async fn give_back(machine: &Machine, claim: proto::HeldClaim, step: StepDigest) {
    let request = proto::CompleteRequest {
        claim: Some(claim),
        outcome: Some(complete_request::Outcome::Failure(failure::cancelled(step))),
    };
    let told = machine.link.call(|mut client| {
        let request = request.clone();
        async move { client.complete(request).await }
    });
    if let Err(status) = told.await {
        tracing::debug!(%status, "a claim could not be given back; it lapses");
    }
}

fn task_died(step: &JobStep, error: &tokio::task::JoinError) -> Failure {
    failure::of_worker(
        step.step.digest,
        &anyhow::anyhow!("the step's task died: {error}"),
    )
}

fn claim_refused(step: &JobStep, status: &tonic::Status) -> Failure {
    match status.code() {
        tonic::Code::Cancelled => failure::cancelled(step.step.digest),
        _ => failure::of_worker(
            step.step.digest,
            &anyhow::anyhow!("claiming the step: {}", status.message()),
        ),
    }
}

async fn key(
    machine: &Machine,
    job: &Job,
    step: &JobStep,
    inputs: &[Chain],
) -> Result<StepKey, Failure> {
    let digest = step.step.digest;
    let tocs = JobTocs {
        layers: &machine.layers,
        job: &job.spec.id,
    };
    match buildyard_solver::key(&step.step, inputs, &machine.trees, &tocs).await {
        Ok(Some(key)) => Ok(key),
        Ok(None) => Err(failure::of_worker(
            digest,
            &anyhow::anyhow!("an input's table of contents could not be made"),
        )),
        Err(KeyError::Select(error)) => {
            let message = KeyError::missing_text(&error, inputs);
            Err(failure::of_step(digest, message, 0))
        }
        Err(KeyError::Tocs(error)) => Err(tocs_failure(step, error)),
    }
}

/// A layer that is lost is planned anew, an image that cannot be had is the user's; anything else is this worker's failure.
pub(super) fn tocs_failure(step: &JobStep, error: TocsError) -> Failure {
    match error.pulling().map(|pulling| (pulling.fault(), pulling)) {
        Some((Fault::Image, pulling)) => {
            return failure::of_step(step.step.digest, pulling.full_text(), 0);
        }
        Some((Fault::Registry, pulling)) => {
            return failure::of_registry(step.step.digest, pulling.full_text());
        }
        Some((Fault::Machine, _)) | None => {}
    }
    match error {
        TocsError::Lost { layer, reason } => failure::of_lost_layer(
            step.step.digest,
            layer,
            format!("layer {layer} is lost: {reason}"),
        ),
        error => failure::of_worker(step.step.digest, &error.into()),
    }
}

/// Runs a claimed step as a task that outlives the job, and waits for it.
async fn run_claimed(
    machine: &Arc<Machine>,
    job: &Arc<Job>,
    number: usize,
    inputs: Inputs,
    claim: proto::HeldClaim,
) -> Result<(), Failure> {
    let (machine_of_task, job_of_task, claim_of_task) =
        (machine.clone(), job.clone(), claim.clone());
    let task = machine.running.start(&claim, move |stop| async move {
        run_and_report(
            machine_of_task,
            job_of_task,
            number,
            inputs,
            claim_of_task,
            stop,
        )
        .await
    });
    match task.await {
        Ok(outcome) => outcome,
        Err(error) => Err(task_died(&job.spec.steps[number], &error)),
    }
}

async fn run_and_report(
    machine: Arc<Machine>,
    job: Arc<Job>,
    number: usize,
    inputs: Inputs,
    claim: proto::HeldClaim,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let step = &job.spec.steps[number];
    let began = Instant::now();
    let own = StepFlats::new(machine.layers.flats(), &stop);
    let outcome = run(&machine, &job, step, &inputs.chains, &stop, own.files()).await;
    // Whatever it stumbled over then.
    let outcome = outcome.map_err(|failure| match stop.is_cancelled() {
        true => failure::cancelled(step.step.digest),
        false => failure,
    });
    let took = began.elapsed();
    let made = outcome.iter().flat_map(|made| &made.layers);
    let flats: Vec<FlatId> = made.flat_map(|(_, toc)| toc.flats.clone()).collect();
    let using = machine.cache.using_flats(flats.iter().copied()).await;
    let (outcome, recording) = match outcome {
        Ok(made) => {
            // The steps behind it begin; the disk and the farm's records are not waited for.
            let recording = job.board.set_made(step.step.digest, made.outputs.clone());
            ended(&machine, &job, step, false, "").await;
            let ready = ready_to_record(step, inputs, &own).await;
            (ready.map(|()| made), Some(recording))
        }
        Err(failure) => (Err(failure), None),
    };
    let reply = report(&machine, step, &claim, &outcome, took).await;
    match (&outcome, &reply) {
        (Ok(_), Ok(reply)) if !reply.stale => own.keep_only(flats.into_iter().collect()).await,
        // It may be recorded all the same.
        (Ok(_), Err(_)) => {}
        _ => own.keep_only(HashSet::new()).await,
    }
    if let Err(failure) = &outcome {
        ended(&machine, &job, step, false, &failure.message).await;
    }
    let made = outcome?;
    match reply {
        Ok(reply) if !reply.stale => {}
        Ok(_) => return Err(failure::cancelled(step.step.digest)),
        Err(status) => {
            let error = anyhow::anyhow!("recording the step's result: {}", status.message());
            return Err(failure::of_worker(step.step.digest, &error));
        }
    }
    recording.into_iter().for_each(Recording::done);
    upload::publish(&machine, claim, made.layers, using);
    Ok(())
}

/// Waits until a result may be recorded: all that it names is on the disk, and what it builds on is recorded.
async fn ready_to_record(step: &JobStep, inputs: Inputs, own: &StepFlats) -> Result<(), Failure> {
    own.sync().await.map_err(|error| {
        let error = anyhow::Error::new(error).context("writing what the step made to the disk");
        failure::of_worker(step.step.digest, &error)
    })?;
    for recorded in inputs.recorded {
        if !recorded.wait().await {
            return Err(failure::cancelled(step.step.digest));
        }
    }
    Ok(())
}

/// Tells the coordinator what became of a claimed step.
async fn report(
    machine: &Machine,
    step: &JobStep,
    claim: &proto::HeldClaim,
    outcome: &Result<Made, Failure>,
    took: Duration,
) -> Result<proto::CompleteReply, tonic::Status> {
    let request = proto::CompleteRequest {
        claim: Some(claim.clone()),
        outcome: Some(match outcome {
            Ok(made) => complete_request::Outcome::Completed(completed(step, made, took)),
            Err(failure) => complete_request::Outcome::Failure(failure.clone()),
        }),
    };
    let reply = machine.link.call(|mut client| {
        let request = request.clone();
        async move { client.complete(request).await }
    });
    reply.await
}

fn completed(step: &JobStep, made: &Made, took: Duration) -> proto::CompletedStep {
    let layer = |(id, toc): &(LayerId, Arc<Toc>)| proto::MadeLayer {
        id: id.to_string(),
        toc: toc.encode_shared().into(),
        flats: toc.flats.iter().map(ToString::to_string).collect(),
    };
    let platform = step
        .step
        .executes()
        .then(|| step.step.platform.as_ref().map(ToString::to_string))
        .flatten();
    proto::CompletedStep {
        result: Some(encode_result(&made.outputs)),
        layers: made.layers.iter().map(layer).collect(),
        duration_millis: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        platform: platform.unwrap_or_default(),
        emulated: !made.emulator.is_empty(),
    }
}

async fn run(
    machine: &Arc<Machine>,
    job: &Arc<Job>,
    step: &JobStep,
    inputs: &[Chain],
    stop: &CancellationToken,
    flats: &FlatFiles,
) -> Result<Made, Failure> {
    match &step.step.op.op {
        Some(Op::Exec(exec)) => exec_step::run(machine, job, step, exec, inputs, stop, flats).await,
        Some(Op::File(file)) => {
            started(machine, job, step, "").await;
            file_step::run(machine, job, step, file, inputs, flats).await
        }
        Some(Op::Merge(merge)) => {
            started(machine, job, step, "").await;
            let chain = |index: i64| {
                usize::try_from(index)
                    .ok()
                    .and_then(|index| inputs.get(index))
            };
            let layers = merge
                .inputs
                .iter()
                .filter_map(|input| chain(input.input))
                .flat_map(|chain| chain.layers().to_vec());
            Ok(Made {
                outputs: vec![Chain::new(layers.collect())],
                layers: Vec::new(),
                emulator: String::new(),
            })
        }
        Some(Op::Diff(diff)) => {
            started(machine, job, step, "").await;
            file_step::diff(machine, job, step, diff, inputs).await
        }
        _ => Err(failure::of_step(
            step.step.digest,
            "the operation is not one that a worker can run",
            0,
        )),
    }
}

/// Says that a step has begun, and under which emulator.
pub(super) async fn started(machine: &Machine, job: &Job, step: &JobStep, emulator: &str) {
    let event = step_event::Event::Started(proto::StepStarted {
        emulator: emulator.to_owned(),
    });
    machine
        .link
        .step_event(&job.spec.id, &step.step.digest.to_string(), event)
        .await;
}

async fn ended(machine: &Machine, job: &Job, step: &JobStep, cached: bool, error: &str) {
    let event = step_event::Event::Ended(proto::StepEnded {
        cached,
        error: error.to_owned(),
    });
    machine
        .link
        .step_event(&job.spec.id, &step.step.digest.to_string(), event)
        .await;
}
