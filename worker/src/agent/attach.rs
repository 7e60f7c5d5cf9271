//! Being attached: registering, heartbeats, orders; again when the connection breaks, until told to stop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use buildyard_layer::FlatFiles;
use buildyard_model::{Digest, StepDigest};
use buildyard_proto::decode_result;
use buildyard_proto::v1::{self as proto, from_worker, to_worker};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::board::Board;
use super::cache::{Cache, Stock};
use super::config::WorkerConfig;
use super::exec_step::{Executor, ExecutorConfig};
use super::job::{self, Job};
use super::layers::Layers;
use super::link;
use super::machine::Machine;
use super::register::{heartbeat, register};
use super::running::Running;
use super::slots::Slots;
use super::spec::JobSpec;
use super::{step, upload};

/// How long what was stopped may take to be gone.
const AFTERWARDS: Duration = Duration::from_secs(10);
/// Pauses between two tries to attach.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Runs a worker until `cancel`; then it takes nothing new, lets running steps end for a moment, and stops the rest.
///
/// # Errors
/// The data directory cannot be used, steps cannot be run on this machine, or the coordinator refuses the worker for good
/// (its name is taken).
pub async fn run(config: WorkerConfig, cancel: CancellationToken) -> anyhow::Result<()> {
    let session = hex::encode(rand::random::<[u8; 16]>());
    let stopped = CancellationToken::new();
    let (link, mut events) = link::open(config.channel.clone(), &session, stopped.clone());
    let machine = Arc::new(machine(&config, link).await?);
    let tasks = TaskTracker::new();
    // What lies here is known before it is reported.
    machine.cache.look().await;
    tasks.spawn(machine.cache.clone().run(stopped.clone()));
    let attachment = Attachment {
        machine: &machine,
        config: &config,
        session: &session,
        fresh: true,
        events: &mut events,
        tasks: &tasks,
        cancel: &cancel,
    };
    let outcome = stay_attached(attachment).await;
    cancel_jobs(&machine);
    machine.running.stop_all();
    let _ = tokio::time::timeout(AFTERWARDS, machine.running.ended()).await;
    stopped.cancel();
    tasks.close();
    tasks.wait().await;
    if let Some(executor) = &machine.executor {
        executor.close().await;
    }
    machine.uploads.close();
    let _ = tokio::time::timeout(AFTERWARDS, machine.uploads.wait()).await;
    outcome
}

/// Attaches again and again until the worker is told to stop.
async fn stay_attached(mut attachment: Attachment<'_>) -> anyhow::Result<()> {
    let cancel = attachment.cancel.clone();
    let mut pause = SHORTEST_PAUSE;
    while !cancel.is_cancelled() {
        let began = Instant::now();
        match attachment.attached().await {
            Ok(()) => break,
            Err(status) if status.code() == tonic::Code::AlreadyExists && attachment.fresh => {
                anyhow::bail!("the coordinator refuses this worker: {}", status.message());
            }
            Err(status) => {
                let (code, error) = (status.code(), status.message());
                tracing::info!(
                    ?code,
                    error,
                    "not attached to the coordinator; trying again"
                );
            }
        }
        if began.elapsed() > Duration::from_secs(10) {
            pause = SHORTEST_PAUSE;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = cancel.cancelled() => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Ok(())
}

async fn machine(config: &WorkerConfig, link: link::Link) -> anyhow::Result<Machine> {
    std::fs::create_dir_all(&config.data)
        .with_context(|| format!("making the data directory {}", config.data.display()))?;
    let flats = match &config.shared_flats {
        Some(flats) => flats.clone(),
        None => FlatFiles::new(config.data.join("flats"))
            .with_context(|| format!("opening the flat files in {}", config.data.display()))?,
    };
    let executes = config
        .platforms
        .as_ref()
        .is_none_or(|platforms| !platforms.is_empty());
    let mut offered = Vec::new();
    let mut executor = None;
    if executes {
        let started = Executor::start(ExecutorConfig {
            data: config.data.clone(),
            snapshotter: config.snapshotter,
            flats: flats.clone(),
            allow_host_binfmt: config.allow_host_binfmt,
            step_memory: config.step_memory,
            runner: config.runner.clone(),
        })
        .await?;
        offered = started.platforms();
        if let Some(wanted) = &config.platforms {
            let all = offered.clone();
            offered.retain(|offer| wanted.contains(&offer.platform));
            if let Some(missing) = wanted
                .iter()
                .find(|w| !all.iter().any(|offer| offer.platform == **w))
            {
                let have: Vec<String> =
                    all.iter().map(|offer| offer.platform.to_string()).collect();
                anyhow::bail!(
                    "this machine cannot run {missing} (it can run {})",
                    have.join(", ")
                );
            }
        }
        executor = Some(started);
    }
    let slots = usize::try_from(config.slots.max(1)).unwrap_or(1);
    let stock = Stock {
        snapshots: executor.as_ref().map(Executor::snapshots),
        flats: config.shared_flats.is_none().then(|| flats.clone()),
    };
    Ok(Machine {
        layers: Layers::new(
            link.clone(),
            flats,
            config.shared_flats.is_some(),
            config.registry.clone(),
        ),
        cache: Cache::new(config.data.clone(), config.cache_limit, stock)
            .with_context(|| format!("asking for the room in {}", config.data.display()))?,
        link,
        trees: Default::default(),
        running: Arc::new(Running::default()),
        slots: Slots::new(&config.name, slots),
        jobs: Default::default(),
        offered,
        executor,
        uploads: TaskTracker::new(),
        upload_slots: Semaphore::new(upload::AT_ONCE),
        allow_host_network: config.allow_host_network,
    })
}

/// What lives as long as the worker, over all its connections.
struct Attachment<'a> {
    machine: &'a Arc<Machine>,
    config: &'a WorkerConfig,
    session: &'a str,
    /// It has never been registered.
    fresh: bool,
    events: &'a mut mpsc::Receiver<proto::FromWorker>,
    tasks: &'a TaskTracker,
    cancel: &'a CancellationToken,
}

impl Attachment<'_> {
    /// One connection, from registering to its end. `Ok` when the worker should stop.
    async fn attached(&mut self) -> Result<(), tonic::Status> {
        let (sender, receiver) = mpsc::channel(256);
        let (mut told, register) = register(self.machine, self.config, self.session, self.fresh);
        send(&sender, from_worker::Event::Register(register)).await?;
        let mut client = self.machine.link.client();
        let orders = tokio::select! {
            orders = client.attach(ReceiverStream::new(receiver)) => orders?,
            () = self.cancel.cancelled() => return Ok(()),
        };
        let mut orders = orders.into_inner();
        self.fresh = false;
        let mut beats = tokio::time::interval(Duration::from_secs(5));
        let mut look = tokio::time::interval(Duration::from_millis(20));
        let mut drain: Option<Drain> = None;
        let mut is_stopping = false;
        loop {
            tokio::select! {
                order = orders.message() => match order? {
                    Some(proto::ToWorker { order: Some(order) }) => {
                        let is_shutdown = matches!(order, to_worker::Order::Shutdown(_));
                        if let to_worker::Order::Registered(registered) = &order {
                            beats = interval(registered);
                        }
                        obey(self.machine, self.tasks, order);
                        if is_shutdown {
                            is_stopping = true;
                            // Behind everything that was ordered before: the coordinator waits for it.
                            send(&sender, from_worker::Event::ShutdownHeard(proto::ShutdownHeard {})).await?;
                        }
                    }
                    Some(_) => {}
                    None => return Err(tonic::Status::unavailable(ended(is_stopping))),
                },
                Some(event) = self.events.recv() => {
                    sender.send(event).await.map_err(closed)?;
                }
                _ = beats.tick() => {
                    let beat = from_worker::Event::Heartbeat(heartbeat(self.machine, &mut told));
                    send(&sender, beat).await?;
                }
                () = self.cancel.cancelled(), if drain.is_none() => {
                    send(&sender, from_worker::Event::Draining(proto::Draining {})).await?;
                    cancel_jobs(self.machine);
                    drain = Some(Drain::new(self.config.grace));
                }
                _ = look.tick(), if drain.is_some() => {
                    if drain.as_mut().is_some_and(|drain| drain.is_over(self.machine)) {
                        break;
                    }
                }
            }
        }
        while let Ok(event) = self.events.try_recv() {
            sender.send(event).await.map_err(closed)?;
        }
        // The end of what is sent reaches the coordinator behind all of it; then it ends the connection.
        drop(sender);
        let ended = async { while let Ok(Some(_)) = orders.message().await {} };
        let _ = tokio::time::timeout(AFTERWARDS, ended).await;
        Ok(())
    }
}

/// Why the stream of orders ended.
fn ended(is_stopping: bool) -> &'static str {
    if is_stopping {
        "the coordinator has stopped, in order"
    } else {
        "the coordinator closed the connection"
    }
}

fn closed<T>(_: T) -> tonic::Status {
    tonic::Status::unavailable("the connection is closed")
}

async fn send(
    sender: &mpsc::Sender<proto::FromWorker>,
    event: from_worker::Event,
) -> Result<(), tonic::Status> {
    let message = proto::FromWorker { event: Some(event) };
    sender.send(message).await.map_err(closed)
}

fn interval(registered: &proto::Registered) -> tokio::time::Interval {
    let millis = u64::from(registered.heartbeat_millis.max(100));
    tokio::time::interval(Duration::from_millis(millis))
}

/// A worker that was told to stop: steps and uploads may come to their end, for a while.
struct Drain {
    stop_at: Instant,
    end_at: Instant,
    stopped: bool,
}

impl Drain {
    fn new(grace: Duration) -> Self {
        let stop_at = Instant::now() + grace;
        Self {
            stop_at,
            end_at: stop_at + AFTERWARDS,
            stopped: false,
        }
    }

    /// Whether nothing is under way any more, or its time is over. Stops what runs when the grace is over.
    fn is_over(&mut self, machine: &Machine) -> bool {
        let now = Instant::now();
        if now >= self.stop_at && !self.stopped {
            self.stopped = true;
            machine.running.stop_all();
        }
        now >= self.end_at || (machine.running.is_idle() && machine.uploads.is_empty())
    }
}

fn cancel_jobs(machine: &Machine) {
    let jobs = machine.jobs.lock();
    for job in jobs.expect("nobody panics while holding it").values() {
        job.cancel.cancel();
    }
}

fn obey(machine: &Arc<Machine>, tasks: &TaskTracker, order: to_worker::Order) {
    match order {
        to_worker::Order::StartJob(order) => start_job(machine, tasks, order),
        to_worker::Order::CancelJob(order) => {
            if let Some(job) = machine
                .jobs
                .lock()
                .expect("nobody panics while holding it")
                .remove(&order.job)
            {
                tracing::info!(job = order.job, reason = order.reason, "a job is cancelled");
                job.cancel.cancel();
            }
        }
        to_worker::Order::StopStep(order) => {
            if let Some(claim) = &order.claim {
                tracing::info!(key = claim.key, reason = order.reason, "a step is stopped");
                stop_step(machine, tasks, claim);
            }
        }
        to_worker::Order::StepKnown(order) => {
            let job = machine
                .jobs
                .lock()
                .expect("nobody panics while holding it")
                .get(&order.job)
                .cloned();
            let chains = decode_result(&order.result.unwrap_or_default());
            if let (Some(job), Ok(step), Ok(chains)) = (job, order.step.parse(), chains) {
                job.board.set(step, chains);
            }
        }
        to_worker::Order::Registered(registered) => {
            for claim in &registered.lost_claims {
                machine.running.stop(claim);
            }
            for job in &registered.lost_jobs {
                if let Some(job) = machine
                    .jobs
                    .lock()
                    .expect("nobody panics while holding it")
                    .remove(job)
                {
                    job.cancel.cancel();
                }
            }
        }
        to_worker::Order::Shutdown(shutdown) => {
            tracing::info!(
                reason = shutdown.reason,
                running = machine.running.claims().len(),
                "the coordinator stops; what it did not stop goes on"
            );
        }
    }
}

/// Stops a step. One that is not under way here was claimed by an answer that was lost, or is yet to come: given back.
fn stop_step(machine: &Arc<Machine>, tasks: &TaskTracker, claim: &proto::HeldClaim) {
    if machine.running.stop(claim) {
        return;
    }
    let (machine, claim) = (machine.clone(), claim.clone());
    let nowhere = StepDigest(Digest::of([]));
    tasks.spawn(async move { step::give_back(&machine, claim, nowhere).await });
}

fn start_job(machine: &Arc<Machine>, tasks: &TaskTracker, order: proto::StartJob) {
    let id = order.job.clone();
    let spec = match JobSpec::decode(order) {
        Ok(spec) => spec,
        Err(error) => {
            tracing::error!(job = id, %error, "a job could not be understood");
            let (machine, tasks) = (machine.clone(), tasks.clone());
            tasks.spawn(async move {
                let failure = proto::Failure {
                    kind: proto::failure::Kind::Worker.into(),
                    message: error.to_string(),
                    ..proto::Failure::default()
                };
                let ended = proto::JobEnded {
                    job: id,
                    failure: Some(failure),
                };
                machine.link.send(from_worker::Event::JobEnded(ended)).await;
            });
            return;
        }
    };
    let board = Board::new(&spec);
    let job = Arc::new(Job {
        spec,
        board,
        cancel: CancellationToken::new(),
    });
    machine
        .jobs
        .lock()
        .expect("nobody panics while holding it")
        .insert(id.clone(), job.clone());
    let machine = machine.clone();
    tasks.spawn(async move {
        job::run(machine.clone(), job).await;
        machine
            .jobs
            .lock()
            .expect("nobody panics while holding it")
            .remove(&id);
    });
}
