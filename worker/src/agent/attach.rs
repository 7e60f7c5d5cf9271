//! Being attached: registering, heartbeats, orders; again when the connection breaks, until told to stop.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use buildyard_layer::FlatFiles;
use buildyard_proto::decode_result;
use buildyard_proto::v1::{self as proto, from_worker, to_worker};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::board::Board;
use super::cache::Cache;
use super::config::{Offered, WorkerConfig};
use super::exec_step::{Executor, ExecutorConfig};
use super::job::{self, Job};
use super::layers::Layers;
use super::link;
use super::machine::Machine;
use super::running::Running;
use super::spec::JobSpec;

/// How long running steps may take to end when the worker is told to stop.
const GRACE: Duration = Duration::from_secs(10);
/// Longest pause between two tries to attach.
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
    let own = (!machine.layers.are_shared()).then(|| machine.layers.flats().clone());
    let snapshots = machine.executor.as_ref().map(Executor::snapshots);
    let keeping = machine.cache.clone().run(snapshots, own, stopped.clone());
    tasks.spawn(keeping);
    let mut pause = Duration::from_millis(50);
    let mut refused = None;
    while !cancel.is_cancelled() {
        let began = std::time::Instant::now();
        match attached(&machine, &config, &session, &mut events, &tasks, &cancel).await {
            Ok(()) => break,
            Err(status)
                if status.code() == tonic::Code::AlreadyExists
                    && machine.running.claims().is_empty() =>
            {
                refused = Some(anyhow::anyhow!(
                    "the coordinator refuses this worker: {}",
                    status.message()
                ));
                break;
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
            pause = Duration::from_millis(50);
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = cancel.cancelled() => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    for job in machine
        .jobs
        .lock()
        .expect("nobody panics while holding it")
        .values()
    {
        job.cancel.cancel();
    }
    machine.running.stop_all();
    let _ = tokio::time::timeout(GRACE, machine.running.ended()).await;
    stopped.cancel();
    tasks.close();
    tasks.wait().await;
    if let Some(executor) = &machine.executor {
        executor.close().await;
    }
    machine.uploads.close();
    let _ = tokio::time::timeout(GRACE, machine.uploads.wait()).await;
    match refused {
        Some(error) => Err(error),
        None => Ok(()),
    }
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
            allow_host_binfmt: config.allow_host_binfmt,
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
    Ok(Machine {
        layers: Layers::new(
            link.clone(),
            flats,
            config.shared_flats.is_some(),
            config.registry.clone(),
        ),
        cache: Cache::new(config.data.clone(), config.cache_limit)
            .with_context(|| format!("asking for the room in {}", config.data.display()))?,
        link,
        trees: Default::default(),
        running: Arc::new(Running::default()),
        slots: Semaphore::new(slots),
        jobs: Default::default(),
        offered,
        executor,
        uploads: TaskTracker::new(),
        allow_host_network: config.allow_host_network,
    })
}

/// One connection, from registering to its end. `Ok` when the worker should stop.
async fn attached(
    machine: &Arc<Machine>,
    config: &WorkerConfig,
    session: &str,
    events: &mut mpsc::Receiver<proto::FromWorker>,
    tasks: &TaskTracker,
    cancel: &CancellationToken,
) -> Result<(), tonic::Status> {
    let (sender, receiver) = mpsc::channel(256);
    let message = |event| proto::FromWorker { event: Some(event) };
    let closed = |_| tonic::Status::unavailable("the connection is closed");
    sender
        .send(message(from_worker::Event::Register(register(
            machine, config, session,
        ))))
        .await
        .map_err(closed)?;
    let mut client = machine.link.client();
    let mut orders = client
        .attach(ReceiverStream::new(receiver))
        .await?
        .into_inner();
    let mut heartbeat = tokio::time::interval(Duration::from_secs(5));
    loop {
        tokio::select! {
            order = orders.message() => match order? {
                Some(proto::ToWorker { order: Some(order) }) => {
                    if let to_worker::Order::Registered(registered) = &order {
                        heartbeat = tokio::time::interval(Duration::from_millis(u64::from(registered.heartbeat_millis.max(100))));
                    }
                    if let to_worker::Order::Shutdown(shutdown) = &order {
                        tracing::info!(reason = shutdown.reason, "the coordinator ends");
                        continue;
                    }
                    obey(machine, tasks, order);
                }
                Some(_) => {}
                None => return Err(tonic::Status::unavailable("the coordinator closed the connection")),
            },
            Some(event) = events.recv() => sender.send(event).await.map_err(closed)?,
            _ = heartbeat.tick() => {
                let beat = proto::Heartbeat { claims: machine.running.claims() };
                sender.send(message(from_worker::Event::Heartbeat(beat))).await.map_err(closed)?;
            }
            () = cancel.cancelled() => {
                sender.send(message(from_worker::Event::Draining(proto::Draining {}))).await.map_err(closed)?;
                drain(machine, events, &sender).await;
                return Ok(());
            }
        }
    }
}

/// Lets what runs come to its end, for a moment, and passes on what it still says.
async fn drain(
    machine: &Arc<Machine>,
    events: &mut mpsc::Receiver<proto::FromWorker>,
    sender: &mpsc::Sender<proto::FromWorker>,
) {
    let deadline = tokio::time::Instant::now() + GRACE;
    let mut told = false;
    loop {
        tokio::select! {
            Some(event) = events.recv() => {
                if sender.send(event).await.is_err() {
                    return;
                }
            }
            () = tokio::time::sleep(Duration::from_millis(20)) => {
                if machine.running.claims().is_empty() {
                    return;
                }
            }
            () = tokio::time::sleep_until(deadline), if !told => {
                told = true;
                machine.running.stop_all();
            }
        }
    }
}

fn register(machine: &Machine, config: &WorkerConfig, session: &str) -> proto::Register {
    let offered = |offer: &Offered| proto::OfferedPlatform {
        platform: offer.platform.to_string(),
        emulated: !offer.emulator.is_empty(),
        how: offer.emulator.clone(),
    };
    let networks = machine
        .executor
        .as_ref()
        .map(|executor| executor.networks(machine.allow_host_network));
    let networks = networks.unwrap_or_default();
    proto::Register {
        name: config.name.clone(),
        session: session.to_owned(),
        platforms: machine.offered.iter().map(offered).collect(),
        slots: config.slots,
        claims: machine.running.claims(),
        jobs: machine
            .jobs
            .lock()
            .expect("nobody panics while holding it")
            .keys()
            .cloned()
            .collect(),
        shares_flat_files: config.shared_flats.is_some(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        networks,
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
                machine.running.stop(claim);
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
        to_worker::Order::Shutdown(_) => {}
    }
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
