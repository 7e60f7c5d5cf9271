//! The servers, wired: `up`, `coordinator`, `worker`. The only place that knows both the coordinator and the worker.
//!
//! A coordinator always has a small worker of its own in the process, which executes nothing: file steps and the reading of
//! images need no architecture, so they go on while no other worker is connected. In `up` that worker offers this machine's
//! platforms as well. Both speak the same protocol as workers elsewhere, over memory instead of a socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use buildyard_cas::SizeLimit;
use buildyard_coordinator::endpoint::{Address, EndpointConfig, TlsFiles};
use buildyard_coordinator::keeper::KeeperConfig;
use buildyard_coordinator::{Coordinator, CoordinatorConfig};
use buildyard_model::Platform;
use buildyard_worker::agent::{self, WorkerConfig};
use buildyard_worker::runner::RunnerChoice;
use buildyard_worker::snapshots::SnapshotterChoice;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::args::FarmArgs;
use crate::args::serve::{
    CoordinatorArgs, EndpointArgs, OfferArgs, ServeCommand, StoreArgs, UpArgs, WorkerArgs,
};
use crate::connect::{DEFAULT_PORT, Farm};
use crate::exit::Failure;
use crate::heap;

/// Name of the worker that lives in a coordinator's process.
const BUILT_IN: &str = "coordinator";

/// Runs a server until SIGTERM or SIGINT. Beside it, memory is given back.
///
/// # Errors
/// The server could not start, or ended by itself.
pub async fn run(command: ServeCommand) -> Result<(), Failure> {
    crate::log::start();
    let server = async {
        match command {
            ServeCommand::Up(args) => up(args).await,
            ServeCommand::Coordinator(args) => coordinator(args).await,
            ServeCommand::Worker(args) => worker(args).await,
        }
    };
    let stop = CancellationToken::new();
    let serving = async {
        let outcome = server.await;
        stop.cancel();
        outcome
    };
    tokio::join!(serving, heap::give_back(stop.clone())).0
}

async fn up(args: UpArgs) -> Result<(), Failure> {
    let config = coordinator_config(&args.endpoint, &args.store, None, None, args.grace)?;
    let offer = offer(&args.offer)?;
    serve(config, machine_name(), offer, args.cache_limit).await
}

async fn coordinator(args: CoordinatorArgs) -> Result<(), Failure> {
    let database = args
        .database
        .as_deref()
        .map(|url| path_of(url, "sqlite:", "--database"))
        .transpose()?;
    let blobs = args
        .blobs
        .as_deref()
        .map(|url| path_of(url, "file:", "--blobs"))
        .transpose()?;
    let config = coordinator_config(&args.endpoint, &args.store, database, blobs, args.grace)?;
    let nothing = OfferConfig {
        platforms: Some(Vec::new()),
        ..OfferConfig::default()
    };
    // It executes nothing, so it unpacks nothing.
    let unlimited = SizeLimit::Bytes(u64::MAX);
    serve(config, BUILT_IN.to_owned(), nothing, unlimited).await
}

/// A coordinator with a worker in the same process.
async fn serve(
    config: CoordinatorConfig,
    name: String,
    offer: OfferConfig,
    cache_limit: SizeLimit,
) -> Result<(), Failure> {
    let data = config.data.join("worker");
    let registry = config.registry.clone();
    let coordinator = Coordinator::open(config).await.map_err(cannot_start)?;
    for address in coordinator.addresses() {
        tracing::info!(%address, "listening");
        println!("listening on {address}");
    }
    // The coordinator has given the builds their time before.
    let grace = Duration::from_secs(5);
    let config = WorkerConfig {
        shared_flats: Some(coordinator.flats()),
        registry,
        ..offer.worker(name, coordinator.in_process(), data, cache_limit, grace)
    };
    let (stop, stop_worker) = (CancellationToken::new(), CancellationToken::new());
    let mut serving = tokio::spawn(coordinator.serve(stop.clone()));
    let mut working = tokio::spawn(agent::run(config, stop_worker.clone()));
    let outcome = tokio::select! {
        () = asked_to_stop() => Ok(()),
        ended = &mut serving => return flatten(ended, "the coordinator"),
        ended = &mut working => flatten(ended, "the worker in this process"),
    };
    stop.cancel();
    let served = flatten(serving.await, "the coordinator");
    stop_worker.cancel();
    if outcome.is_ok() {
        flatten(working.await, "the worker in this process")?;
    }
    outcome.and(served)
}

async fn worker(args: WorkerArgs) -> Result<(), Failure> {
    let offer = offer(&args.offer)?;
    let certificates = FarmArgs {
        ca: args.ca.clone(),
        cert: args.cert.clone(),
        key: args.key.clone(),
        ..FarmArgs::default()
    };
    let farm = Farm::to_join(&args.join, &certificates)?;
    std::fs::create_dir_all(&args.data)
        .with_context(|| format!("making the data directory {}", args.data.display()))?;
    let _guard = buildyard_worker::lock(&args.data).map_err(|error| cannot_start(error.into()))?;
    let name = args.name.unwrap_or_else(machine_name);
    let grace = Duration::from_secs(args.grace);
    let channel = farm.lazy_channel()?;
    let config = offer.worker(name, channel, args.data, args.cache_limit, grace);
    let stop = CancellationToken::new();
    let mut working = tokio::spawn(agent::run(config, stop.clone()));
    tokio::select! {
        () = asked_to_stop() => {}
        ended = &mut working => return flatten(ended, "the worker"),
    }
    stop.cancel();
    flatten(working.await, "the worker")
}

fn coordinator_config(
    endpoint_args: &EndpointArgs,
    store: &StoreArgs,
    database: Option<PathBuf>,
    blobs: Option<PathBuf>,
    grace: u64,
) -> Result<CoordinatorConfig, Failure> {
    let build_platform = store
        .build_platform
        .as_deref()
        .map(str::parse::<Platform>)
        .transpose();
    Ok(CoordinatorConfig {
        data: store.data.clone(),
        database,
        blobs,
        endpoint: endpoint(endpoint_args)?,
        registry: Default::default(),
        farm: Default::default(),
        keeper: KeeperConfig {
            limit: store.store_limit,
            ..KeeperConfig::default()
        },
        build_platform: build_platform
            .map_err(|error| Failure::usage(format!("--build-platform: {error}")))?,
        grace: Duration::from_secs(grace),
    })
}

/// The path in `sqlite:PATH` or `file:PATH`.
fn path_of(url: &str, scheme: &str, flag: &str) -> Result<PathBuf, Failure> {
    match url.strip_prefix(scheme) {
        Some(path) if !path.is_empty() => {
            Ok(Path::new(path.strip_prefix("//").unwrap_or(path)).to_owned())
        }
        _ => Err(Failure::usage(format!(
            "{flag} {url:?}: only {scheme}PATH is known"
        ))),
    }
}

/// What a worker offers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OfferConfig {
    /// Only these platforms; none: all that the machine can run.
    pub platforms: Option<Vec<Platform>>,
    /// How many steps at once; none: one for each processor.
    pub slots: Option<u32>,
    /// How layers are made ready for steps.
    pub snapshotter: SnapshotterChoice,
    /// Whether steps may use the machine's network.
    pub allow_host_network: bool,
    /// Whether QEMU may be registered with the machine's kernel.
    pub allow_host_binfmt: bool,
    /// Most memory of one step, in bytes; none: no limit.
    pub step_memory: Option<u64>,
    /// What steps are run by.
    pub runner: RunnerChoice,
}

impl OfferConfig {
    /// A worker that offers this, apart from its coordinator's process.
    fn worker(
        self,
        name: String,
        channel: Channel,
        data: PathBuf,
        cache_limit: SizeLimit,
        grace: Duration,
    ) -> WorkerConfig {
        WorkerConfig {
            name,
            channel,
            data,
            slots: self.slots.unwrap_or_else(processors),
            platforms: self.platforms,
            snapshotter: self.snapshotter,
            allow_host_network: self.allow_host_network,
            allow_host_binfmt: self.allow_host_binfmt,
            step_memory: self.step_memory,
            runner: self.runner,
            shared_flats: None,
            cache_limit,
            grace,
            registry: Default::default(),
        }
    }
}

/// Checks the flags of an endpoint.
///
/// # Errors
/// A malformed address; one beyond loopback without client certificates and without `--allow-unauthenticated`.
pub fn endpoint(args: &EndpointArgs) -> Result<EndpointConfig, Failure> {
    let mut listen: Vec<Address> = Vec::new();
    for text in &args.listen {
        listen.push(
            text.parse()
                .map_err(|error| Failure::usage(format!("--listen: {error}")))?,
        );
    }
    if listen.is_empty() {
        listen.push(Address::Tcp(format!("127.0.0.1:{DEFAULT_PORT}")));
    }
    let tls = match (&args.tls_cert, &args.tls_key) {
        (Some(certificate), Some(key)) => Some(TlsFiles {
            certificate: certificate.clone(),
            key: key.clone(),
            client_ca: args.client_ca.clone(),
        }),
        _ => None,
    };
    let authenticated = tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    let exposed = listen.iter().find(|address| !address.is_local());
    match exposed {
        Some(address) if !authenticated && !args.allow_unauthenticated => {
            Err(Failure::usage(format!(
                "--listen {address} is reachable from other machines: give --tls-cert, --tls-key and --client-ca, \
             or --allow-unauthenticated to let anybody in"
            )))
        }
        _ => Ok(EndpointConfig {
            listen,
            tls,
            allow_unauthenticated: args.allow_unauthenticated,
        }),
    }
}

/// Checks what a worker shall offer.
///
/// # Errors
/// A text that is no platform.
pub fn offer(args: &OfferArgs) -> Result<OfferConfig, Failure> {
    let platforms = args
        .platforms
        .iter()
        .map(|text| {
            text.trim()
                .parse()
                .map_err(|error| Failure::usage(format!("--platforms: {error}")))
        })
        .collect::<Result<Vec<Platform>, _>>()?;
    Ok(OfferConfig {
        platforms: (!platforms.is_empty()).then_some(platforms),
        slots: args.slots,
        snapshotter: args.snapshotter,
        allow_host_network: args.allow_host_network,
        allow_host_binfmt: args.allow_host_binfmt,
        step_memory: args.step_memory,
        runner: args.runner.clone(),
    })
}

fn processors() -> u32 {
    std::thread::available_parallelism()
        .ok()
        .and_then(|n| u32::try_from(n.get()).ok())
        .unwrap_or(1)
}

fn machine_name() -> String {
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    if name.is_empty() {
        "worker".to_owned()
    } else {
        name
    }
}

fn cannot_start(error: anyhow::Error) -> Failure {
    Failure::Farm(error)
}

fn flatten(
    ended: Result<anyhow::Result<()>, tokio::task::JoinError>,
    who: &str,
) -> Result<(), Failure> {
    match ended {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Failure::Farm(error)),
        Err(error) => Err(Failure::Farm(anyhow::anyhow!("{who} died: {error}"))),
    }
}

async fn asked_to_stop() {
    let mut terminate = signal(SignalKind::terminate()).expect("signals can be listened to");
    let mut interrupt = signal(SignalKind::interrupt()).expect("signals can be listened to");
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
        _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::serve::ServeCommand;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        command: ServeCommand,
    }

    fn endpoint_of(words: &[&str]) -> Result<EndpointConfig, Failure> {
        let line = ["buildyard", "coordinator", "--data", "d"]
            .iter()
            .chain(words);
        match Line::try_parse_from(line).unwrap().command {
            ServeCommand::Coordinator(args) => endpoint(&args.endpoint),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn addresses_are_read() {
        let check = |words: &[&str], expected: &[Address]| {
            assert_eq!(endpoint_of(words).unwrap().listen, expected, "{words:?}");
        };
        let tcp = |text: &str| Address::Tcp(text.to_owned());
        check(&[], &[tcp("127.0.0.1:8372")]);
        check(&["--listen", "localhost:1"], &[tcp("localhost:1")]);
        check(
            &["--listen", "tcp://[::1]:1", "--listen", "unix:///r/b"],
            &[tcp("[::1]:1"), Address::Unix("/r/b".into())],
        );
        assert!(endpoint_of(&["--listen", "nonsense"]).is_err());
    }

    #[test]
    fn an_exposed_endpoint_asks_for_certificates() {
        let refused =
            |words: &[&str]| assert_eq!(endpoint_of(words).unwrap_err().number(), 2, "{words:?}");
        refused(&["--listen", "0.0.0.0:1"]);
        refused(&["--listen", "0.0.0.0:1", "--tls-cert", "c", "--tls-key", "k"]);
        endpoint_of(&[
            "--listen",
            "0.0.0.0:1",
            "--tls-cert",
            "c",
            "--tls-key",
            "k",
            "--client-ca",
            "a",
        ])
        .unwrap();
        endpoint_of(&["--listen", "0.0.0.0:1", "--allow-unauthenticated"]).unwrap();
    }

    #[test]
    fn workers_offer_platforms_and_slots() {
        let line = [
            "buildyard",
            "worker",
            "--join",
            "http://c:1",
            "--data",
            "d",
            "--platforms",
            "linux/aarch64,arm",
            "--slots",
            "3",
            "--step-memory",
            "2G",
            "--snapshotter",
            "auto",
        ];
        let ServeCommand::Worker(args) = Line::try_parse_from(line).unwrap().command else {
            panic!("not a worker")
        };
        let offer = offer(&args.offer).unwrap();
        assert_eq!(
            offer.platforms.unwrap(),
            [
                "linux/arm64".parse().unwrap(),
                "linux/arm/v7".parse().unwrap()
            ]
        );
        assert_eq!((offer.slots, offer.step_memory), (Some(3), Some(2 << 30)));
        assert_eq!(offer.snapshotter, SnapshotterChoice::Auto);
    }

    #[test]
    fn a_step_gets_a_size_that_it_can_start_with() {
        for size in ["4M", "10%", "much"] {
            let line = ["buildyard", "up", "--data", "d", "--step-memory", size];
            let error = Line::try_parse_from(line).unwrap_err().to_string();
            assert!(error.contains("--step-memory"), "{error}");
        }
    }

    #[test]
    fn half_a_certificate_is_refused() {
        for words in [
            ["--tls-cert", "c"],
            ["--tls-key", "k"],
            ["--client-ca", "a"],
        ] {
            let line = ["buildyard", "up", "--data", "d"].iter().chain(&words);
            assert!(Line::try_parse_from(line).is_err(), "{words:?}");
        }
    }
}
