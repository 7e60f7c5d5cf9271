//! One worker's connection: what it sends while it is attached, and what follows from its end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use buildyard_model::{JobId, Mark, WorkerId};
use buildyard_proto::v1::{self as proto, from_worker, to_worker};
use buildyard_scheduler::HeldChange;
use buildyard_store::{HeldClaim, WorkerRecord};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::claims::{JobStep, RunEnd};
use super::convert::{held_from, held_to};
use super::job::Job;
use super::workers::{Line, Offer};
use super::{Farm, dispatch, now};
use crate::causes::with_causes;

/// How long a worker may take to register once it is connected.
const REGISTER_WITHIN: Duration = Duration::from_secs(10);

/// After how many heartbeats' time without any message a connection counts as broken.
const SILENT_BEATS: u32 = 4;

/// How long workers may take to come back after the coordinator was started anew.
const COME_BACK_WITHIN: Duration = Duration::from_secs(15);

/// What the worker reads.
pub(super) type Orders = ReceiverStream<Result<proto::ToWorker, Status>>;

/// Takes a worker in; the connection goes on as a task of the farm.
pub(super) async fn attach(
    farm: &Arc<Farm>,
    mut messages: Streaming<proto::FromWorker>,
) -> Result<Orders, Status> {
    let first = tokio::time::timeout(REGISTER_WITHIN, messages.message())
        .await
        .map_err(|_| Status::deadline_exceeded("the worker did not register in time"))??;
    let Some(from_worker::Event::Register(register)) = first.and_then(|message| message.event)
    else {
        return Err(Status::invalid_argument(
            "a worker's first message must register it",
        ));
    };
    let offer = Offer::decode(&register)?;
    let had = farm.jobs_on(&offer.id);
    let line = connect(farm, &offer, &register.session).await?;
    if line.replaced || (register.fresh && farm.is_known(&offer.id)) {
        farm.worker_lost(&offer.id, "its process was started anew")
            .await
            .map_err(internal)?;
    }
    let record = record(&offer);
    farm.store.put_worker(&record).await.map_err(internal)?;
    farm.note_known(record);
    let registered = welcome(farm, &offer, &register, line.resumed).await?;
    farm.workers
        .order(&offer.id, to_worker::Order::Registered(registered));
    if line.resumed {
        replan_forgotten_jobs(farm, &offer.id, &had, &register.jobs);
        repeat_known(farm, &offer.id);
    }
    farm.workers.repeat_shutdown(&offer.id);
    let holds = held(register.holdings).added;
    farm.schedule(dispatch::Input::Joined(offer.clone(), holds));
    // Whoever sees it connected may count on it: a job that is queued now comes behind it.
    farm.workers.joined(&offer.id, line.number);
    tracing::info!(
        worker_id = %offer.id, native = ?offer.native, emulated = ?offer.emulated, slots = offer.slots,
        resumed = line.resumed, "a worker is connected"
    );
    farm.changed.notify_waiters();
    farm.tasks
        .spawn(serve(farm.clone(), offer.id, line.number, messages));
    Ok(ReceiverStream::new(line.orders))
}

/// What came to and went from a worker's disk. How much of it is remembered is the scheduler's affair.
fn held(holdings: Option<proto::Holdings>) -> HeldChange {
    let holdings = holdings.unwrap_or_default();
    let marks = |list: Vec<u64>| list.into_iter().map(Mark).collect();
    HeldChange {
        added: marks(holdings.added),
        removed: marks(holdings.removed),
    }
}

/// Gives the worker's name to this connection. While another process is connected under it, waits until that one is heard
/// from (then this one is refused), or is gone, or was silent for so long that its connection counts as broken.
async fn connect(farm: &Farm, offer: &Offer, session: &str) -> Result<Line, Status> {
    let arrived = Instant::now();
    loop {
        if let Some(line) = farm.workers.connect(offer.clone(), session, arrived)? {
            return Ok(line);
        }
        if arrived.elapsed() > silence(farm) {
            farm.workers.cut(&offer.id);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn silence(farm: &Farm) -> Duration {
    farm.config.heartbeat * SILENT_BEATS
}

/// What a worker that comes back may go on with.
async fn welcome(
    farm: &Farm,
    offer: &Offer,
    register: &proto::Register,
    resumed: bool,
) -> Result<proto::Registered, Status> {
    let held = register
        .claims
        .iter()
        .map(held_from)
        .collect::<Result<Vec<_>, _>>()?;
    give_unheard_away(farm, &offer.id, &held, &register.jobs, resumed).await?;
    let mut lost = farm
        .store
        .renew(&offer.id, &held, now(), farm.config.claim_ttl)
        .await
        .map_err(internal)?;
    for claim in held {
        if lost.contains(&claim) {
            continue;
        }
        if farm.claims.is_unwanted(&claim) {
            // The order to stop it was lost on the way.
            lost.push(claim);
        } else {
            farm.claims.adopt(claim, &offer.id);
        }
    }
    let lost_jobs = register
        .jobs
        .iter()
        .filter(|job| farm.job(&JobId::new(job.as_str())).is_none())
        .cloned()
        .collect();
    Ok(proto::Registered {
        heartbeat_millis: u32::try_from(farm.config.heartbeat.as_millis()).unwrap_or(u32::MAX),
        lost_claims: lost.iter().map(held_to).collect(),
        lost_jobs,
    })
}

/// Gives up the claims whose answers never reached the worker: it does not show them, and will not ask for them again. What
/// it asks for again, as its job goes on, it is given again.
async fn give_unheard_away(
    farm: &Farm,
    worker: &WorkerId,
    shown: &[HeldClaim],
    jobs: &[String],
    resumed: bool,
) -> Result<(), Status> {
    if !resumed {
        // Of another coordinator's time: what is shown is renewed next.
        let lapsed = farm.store.release_worker(worker, now()).await;
        lapsed.map_err(internal)?;
        return Ok(());
    }
    for run in farm.claims.of(worker) {
        let asks_again = |(job, _): &JobStep| {
            jobs.iter().any(|shown| shown == job.as_str()) && farm.job(job).is_some()
        };
        if shown.contains(&run.held) || run.owner.as_ref().is_some_and(asks_again) {
            continue;
        }
        tracing::info!(worker_id = %worker, key = %run.held.claim.key, "a worker came back without a claim that it was given");
        farm.store.release(&run.held).await.map_err(internal)?;
        farm.claims.end(&run.held, RunEnd::GivenUp);
    }
    Ok(())
}

/// Jobs that this worker had before it came back but does not show: it never got the order, or their end was lost on the way.
fn replan_forgotten_jobs(farm: &Farm, worker: &WorkerId, had: &[Arc<Job>], shown: &[String]) {
    for job in had {
        let forgotten = !shown.iter().any(|id| id == job.request.id.as_str());
        if forgotten && farm.job(&job.request.id).is_some() {
            farm.take_back(job);
            let reason = "the connection broke while the job was on its way".to_owned();
            job.tell(super::JobEvent::WorkerLost {
                worker: worker.clone(),
                reason,
            });
        }
    }
}

/// Tells a worker that came back what it may have missed.
fn repeat_known(farm: &Farm, worker: &WorkerId) {
    for job in farm.jobs_on(worker) {
        for known in job.late() {
            farm.order_known(worker, &job.request.id, known);
        }
    }
}

/// Gives up the workers of the time before this process that do not come back: what they held and had not published.
pub(super) async fn give_up_absent(farm: Arc<Farm>) {
    tokio::select! {
        () = tokio::time::sleep(COME_BACK_WITHIN.max(farm.config.worker_grace)) => {}
        () = farm.cancel.cancelled() => return,
    }
    for record in farm.known() {
        if farm.workers.forget(&record.id, 0) {
            let reason = "it did not come back after the coordinator was started anew";
            if let Err(error) = farm.worker_lost(&record.id, reason).await {
                tracing::error!(worker_id = %record.id, %error, "giving a lost worker's claims up failed");
            }
        }
    }
}

fn record(offer: &Offer) -> WorkerRecord {
    WorkerRecord {
        id: offer.id.clone(),
        native: offer.native.clone(),
        emulated: offer
            .emulated
            .iter()
            .map(|(platform, _)| platform.clone())
            .collect(),
        slots: offer.slots,
        seen: now(),
    }
}

/// Reads what the worker sends until the connection ends; then waits for it to come back, and gives it up.
async fn serve(
    farm: Arc<Farm>,
    worker: WorkerId,
    line: u64,
    mut messages: Streaming<proto::FromWorker>,
) {
    let mut draining = false;
    let reason = loop {
        let message = tokio::select! {
            message = tokio::time::timeout(silence(&farm), messages.next()) => message,
            () = farm.cancel.cancelled() => {
                // The worker's stream of orders ends with this; a server that waits for its streams would wait for ever.
                farm.workers.disconnect(&worker, line);
                return;
            }
        };
        let Ok(message) = message else {
            break "nothing was heard from it for too long".to_owned();
        };
        farm.workers.heard(&worker, line);
        match message {
            Some(Ok(proto::FromWorker { event: Some(event) })) => {
                draining |= matches!(event, from_worker::Event::Draining(_));
                if let Err(error) = handle(&farm, &worker, line, event).await {
                    tracing::warn!(worker_id = %worker, %error, "a worker's message could not be handled");
                }
            }
            Some(Ok(_)) => {}
            Some(Err(status)) => break status.message().to_owned(),
            None => break "it closed the connection".to_owned(),
        }
    };
    if !farm.workers.disconnect(&worker, line) {
        return;
    }
    farm.schedule(dispatch::Input::Away(worker.clone()));
    farm.changed.notify_waiters();
    tracing::info!(worker_id = %worker, reason, draining, "a worker's connection ended");
    if !draining {
        tokio::select! {
            () = tokio::time::sleep(farm.config.worker_grace) => {}
            () = farm.cancel.cancelled() => return,
        }
    }
    if farm.workers.forget(&worker, line)
        && let Err(error) = farm.worker_lost(&worker, &reason).await
    {
        tracing::error!(worker_id = %worker, %error, "giving a lost worker's claims up failed");
    }
}

async fn handle(
    farm: &Arc<Farm>,
    worker: &WorkerId,
    line: u64,
    event: from_worker::Event,
) -> Result<(), Status> {
    match event {
        from_worker::Event::Register(_) => {
            Err(Status::invalid_argument("the worker is registered already"))
        }
        from_worker::Event::Heartbeat(heartbeat) => beat(farm, worker, heartbeat).await,
        from_worker::Event::Step(event) => super::steps::event(farm, worker, &event),
        from_worker::Event::JobEnded(ended) => {
            farm.job_ended(&JobId::new(ended.job), ended.failure);
            Ok(())
        }
        from_worker::Event::Draining(_) => {
            farm.worker_draining(worker);
            Ok(())
        }
        from_worker::Event::ShutdownHeard(_) => {
            farm.workers.heard_shutdown(worker, line);
            farm.changed.notify_waiters();
            Ok(())
        }
    }
}

/// Renews the claims that the worker shows, and takes up what else it says.
async fn beat(farm: &Farm, worker: &WorkerId, heartbeat: proto::Heartbeat) -> Result<(), Status> {
    if heartbeat.holdings.is_some() {
        let change = held(heartbeat.holdings);
        farm.schedule(dispatch::Input::Holds(worker.clone(), change));
    }
    let held = heartbeat
        .claims
        .iter()
        .map(held_from)
        .collect::<Result<Vec<_>, _>>()?;
    let lost = farm
        .store
        .renew(worker, &held, now(), farm.config.claim_ttl)
        .await
        .map_err(internal)?;
    for claim in lost {
        let reason = "the claim was given to another worker".to_owned();
        let order = proto::StopStep {
            claim: Some(held_to(&claim)),
            reason,
        };
        farm.workers
            .order(worker, to_worker::Order::StopStep(order));
    }
    for forgotten in farm.claims.not_shown(worker, &held) {
        tracing::warn!(worker_id = %worker, key = %forgotten.claim.key, "a worker does not know of a claim that it was given");
        farm.store.release(&forgotten).await.map_err(internal)?;
        farm.claims.end(&forgotten, RunEnd::GivenUp);
    }
    Ok(())
}

/// An error of the store, logged where it stops; workers see only that it happened.
pub(super) fn internal(error: impl std::error::Error) -> Status {
    tracing::error!(error = %with_causes(&error), "the coordinator's own storage failed");
    Status::internal("the coordinator could not read or write its own storage; see its log")
}
