//! Claims on steps and what comes of them.

use std::sync::Arc;
use std::time::Duration;

use buildyard_model::{Chain, JobId, LayerId, StepDigest, WorkerId};
use buildyard_proto::v1::{self as proto, claim_reply, complete_request, failure, step_event};
use buildyard_proto::{decode_result, encode_result};
use buildyard_store::{Claim, ClaimKey, ClaimedBy, Completion, LayerRecord, StepResult};
use tonic::Status;

use super::attach::internal;
use super::claims::RunEnd;
use super::convert::{chains_of, held_from, held_to, malformed};
use super::job::Job;
use super::workers::Offer;
use super::{Farm, JobEvent, now};

/// How long those who wait for a step sleep at most before they ask the store again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The same where nobody can wake them.
const ASK_AT_ONCE: Duration = Duration::from_millis(100);

pub(super) const STOPPING: &str = "the coordinator is stopping";

const NOT_WANTED: &str = "is not wanted any more";

/// Passes an event of a step on to its build, and to the builds that wait for the same run.
pub(super) fn event(
    farm: &Farm,
    worker: &WorkerId,
    event: &proto::StepEvent,
) -> Result<(), Status> {
    let step: StepDigest = event.step.parse().map_err(malformed("step"))?;
    let owner = (JobId::new(&event.job), step);
    if let Some(job) = farm.job(&owner.0) {
        job.request.host.step_event(step, worker.as_str(), event);
    }
    let Some(run) = farm.claims.owned_by(&owner) else {
        return Ok(());
    };
    if matches!(event.event, Some(step_event::Event::Ended(_))) {
        return Ok(());
    }
    for (watcher, step) in run.note(event) {
        if let Some(job) = farm.job(&watcher) {
            job.request.host.step_event(step, worker.as_str(), event);
        }
    }
    Ok(())
}

/// Answers a claim; stays open while somebody else runs the step.
pub(super) async fn claim(
    farm: &Arc<Farm>,
    worker: &Offer,
    request: proto::ClaimRequest,
) -> Result<claim_reply::Answer, Status> {
    let job = farm
        .job(&JobId::new(&request.job))
        .ok_or_else(|| Status::cancelled(format!("job {} is not wanted any more", request.job)))?;
    let step: StepDigest = request.step.parse().map_err(malformed("step"))?;
    let asked = job.step(&step);
    let ignore_cache = asked
        .ok_or_else(|| Status::invalid_argument("the step is not in the job"))?
        .ignore_cache;
    let claim = ClaimKey {
        key: request.key.parse().map_err(malformed("key"))?,
        scope: job.request.scope.clone(),
        only_for: ignore_cache.then(|| job.request.build.clone()),
    };
    job.request.host.keyed(step, claim.key);
    let by = ClaimedBy {
        worker: worker.id.clone(),
        job: job.request.id.clone(),
        build: job.request.build.clone(),
        step,
    };
    loop {
        // Joined before the store is asked: an end in between is not missed.
        let waiting = farm
            .claims
            .get(&claim)
            .map(|run| run.watch((by.job.clone(), step)));
        match take(farm, &claim, &by).await? {
            Claim::Run { generation } => {
                let held = buildyard_store::HeldClaim { claim, generation };
                return Ok(claim_reply::Answer::Run(held_to(&held)));
            }
            Claim::Done(result) => {
                let chains = chains_of(&result);
                let held = job.request.host.holds(&chains);
                if held && farm.layers.all_known(&chains).await.map_err(internal)? {
                    job.tell(JobEvent::StepKnown {
                        step,
                        chains: chains.clone(),
                    });
                    return Ok(claim_reply::Answer::Result(encode_result(&chains)));
                }
                farm.store
                    .forget(claim.key, &claim.scope)
                    .await
                    .map_err(internal)?;
            }
            Claim::Held { .. } => {
                if let Some(failure) = wait(farm, &job, step, waiting).await? {
                    return Ok(claim_reply::Answer::Failure(failure));
                }
            }
        }
    }
}

/// Asks the store, and notes a claim that it gives. Both in a task: a worker that hangs up in between leaves no claim behind
/// of which nobody knows.
///
/// # Errors
/// The job is not wanted any more; the coordinator is stopping.
async fn take(farm: &Arc<Farm>, claim: &ClaimKey, by: &ClaimedBy) -> Result<Claim, Status> {
    let (farm, claim, by) = (farm.clone(), claim.clone(), by.clone());
    let tasks = farm.tasks.clone();
    let taken = tasks.spawn(async move {
        let gives_claims = farm.gives_claims.read().await;
        let taken = match *gives_claims {
            true => ask(&farm, claim, &by).await,
            false => Err(Status::unavailable(STOPPING)),
        };
        // A job that was given up before it joined has not been counted among those who left.
        if farm.job(&by.job).is_none() {
            farm.stop_unwanted(&by.job, NOT_WANTED);
            return Err(Status::cancelled(format!("job {} {NOT_WANTED}", by.job)));
        }
        taken
    });
    taken.await.map_err(internal)?
}

/// Asks the store, and notes a claim that it gives.
async fn ask(farm: &Farm, claim: ClaimKey, by: &ClaimedBy) -> Result<Claim, Status> {
    let ttl = farm.config.claim_ttl;
    let taken = farm.store.claim_step(&claim, by, now(), ttl).await;
    let taken = taken.map_err(internal)?;
    if let Claim::Run { generation } = taken {
        let owner = (by.job.clone(), by.step);
        farm.claims
            .begin(claim, generation, owner, by.worker.clone());
    }
    Ok(taken)
}

type Waiting = (
    Vec<proto::StepEvent>,
    tokio::sync::watch::Receiver<Option<RunEnd>>,
);

/// Waits for a run to end, at most until it is time to ask the store again. Returns its failure.
///
/// # Errors
/// The farm stops: the worker asks the next coordinator.
async fn wait(
    farm: &Farm,
    job: &Job,
    step: StepDigest,
    waiting: Option<Waiting>,
) -> Result<Option<proto::Failure>, Status> {
    let Some((backlog, mut end)) = waiting else {
        // Ended just now, or claimed before this process started by a worker that has not come back yet.
        tokio::time::sleep(ASK_AT_ONCE).await;
        return Ok(None);
    };
    for event in backlog {
        job.request.host.step_event(step, "", &event);
    }
    tokio::select! {
        ended = end.wait_for(Option::is_some) => match ended.as_deref() {
            Ok(Some(RunEnd::Failed(failure))) => Ok(Some(proto::Failure { step: step.to_string(), ..failure.clone() })),
            _ => Ok(None),
        },
        () = tokio::time::sleep(ASK_AGAIN) => Ok(None),
        () = farm.cancel.cancelled() => Err(Status::unavailable(STOPPING)),
    }
}

/// Records what a claimed step came to.
pub(super) async fn complete(
    farm: &Farm,
    worker: &Offer,
    request: proto::CompleteRequest,
) -> Result<proto::CompleteReply, Status> {
    let held = held_from(
        &request
            .claim
            .ok_or_else(|| Status::invalid_argument("the claim is missing"))?,
    )?;
    match request.outcome {
        Some(complete_request::Outcome::Completed(completed)) => {
            succeeded(farm, worker, &held, completed).await
        }
        Some(complete_request::Outcome::Failure(failure)) => {
            let stale = !farm.store.release(&held).await.map_err(internal)?;
            let end = match failure.kind() {
                failure::Kind::Step => RunEnd::Failed(failure),
                _ => RunEnd::GivenUp,
            };
            farm.claims.end(&held, end);
            Ok(proto::CompleteReply { stale })
        }
        None => Err(Status::invalid_argument("the outcome is missing")),
    }
}

async fn succeeded(
    farm: &Farm,
    worker: &Offer,
    held: &buildyard_store::HeldClaim,
    completed: proto::CompletedStep,
) -> Result<proto::CompleteReply, Status> {
    let chains =
        decode_result(&completed.result.unwrap_or_default()).map_err(malformed("layer id"))?;
    let run = farm.claims.get(&held.claim).filter(|run| run.held == *held);
    let owner = run.as_ref().and_then(|run| run.owner.clone());
    let job = owner.as_ref().and_then(|(job, _)| farm.job(job));
    if let Some(job) = &job {
        // What is held while it is being removed is found missing later, and made again.
        job.request.host.holds(&chains);
    }
    // Without a valid claim nothing is taken in. It may still be the repetition of what was recorded.
    let is_held = run.as_ref().is_some_and(|run| run.worker == worker.id)
        || may_be_held(farm, worker, held).await?;
    let layers = if is_held { &completed.layers[..] } else { &[] };
    let layers = made(farm, worker, layers).await?;
    let result = StepResult {
        outputs: chains
            .iter()
            .cloned()
            .map(Some)
            .collect::<Vec<Option<Chain>>>(),
        created: now(),
        duration: Duration::from_millis(completed.duration_millis),
        worker: worker.id.clone(),
        platform: completed.platform.parse().ok(),
        emulated: completed.emulated,
        build: job
            .as_ref()
            .map(|job| job.request.build.clone())
            .unwrap_or_else(|| buildyard_model::BuildId::new("")),
        name: owner
            .as_ref()
            .and_then(|(_, step)| Some(job.as_ref()?.step(step)?.name.clone()))
            .unwrap_or_default(),
        log: None,
    };
    let completion = farm
        .store
        .complete(held, &result, &layers, now())
        .await
        .map_err(internal)?;
    farm.layers.were_recorded(&layers);
    farm.claims.end(held, RunEnd::Done);
    if completion == Completion::Stale {
        return Ok(proto::CompleteReply { stale: true });
    }
    if let (Some(job), Some((_, step))) = (job, owner) {
        job.tell(JobEvent::StepKnown { step, chains });
    }
    Ok(proto::CompleteReply { stale: false })
}

/// Whether a claim that this process does not know to be running is its worker's all the same.
async fn may_be_held(
    farm: &Farm,
    worker: &Offer,
    held: &buildyard_store::HeldClaim,
) -> Result<bool, Status> {
    let (shown, ttl) = (std::slice::from_ref(held), farm.config.claim_ttl);
    let lost = farm.store.renew(&worker.id, shown, now(), ttl).await;
    Ok(lost.map_err(internal)?.is_empty())
}

/// Takes in the layers that a step made.
async fn made(
    farm: &Farm,
    worker: &Offer,
    layers: &[proto::MadeLayer],
) -> Result<Vec<LayerRecord>, Status> {
    let mut records = Vec::with_capacity(layers.len());
    for layer in layers {
        let id: LayerId = layer.id.parse().map_err(malformed("layer id"))?;
        let record = farm
            .layers
            .made(id, &layer.toc, &worker.id, worker.shares_flat_files, now())
            .await;
        records.push(record.map_err(|error| {
            Status::invalid_argument(format!("layer {id} was refused: {error}"))
        })?);
    }
    Ok(records)
}
