//! The two engines, with a client each.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::ensure;
use buildyard_tests::compare::Reference;
use buildyard_tests::{Buildx, Serve, Server};

use crate::client::{Build, Timed, time};
use crate::outside;
use crate::processes::{self, Tree};
use crate::relay::{Link, Relay};

/// How long an engine may take to come up, whatever is measured.
const START: Duration = Duration::from_secs(60);

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    /// BuildKit in Debian's Docker engine.
    Reference,
    /// `buildyard up`.
    Ours,
}

impl Side {
    /// As it stands in texts and in repositories' names.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Reference => "reference",
            Self::Ours => "ours",
        }
    }
}

/// A running engine with data of its own, and its client. Stopped and removed when dropped.
#[derive(Debug)]
pub(crate) struct Engine {
    client: Buildx,
    daemon: Daemon,
    timeout: Duration,
    /// The link that its client comes over; none: loopback.
    _link: Option<Relay>,
}

#[derive(Debug)]
enum Daemon {
    Reference(Reference),
    Ours { serve: Serve, server: Server },
}

impl Engine {
    /// Starts one on an empty data directory.
    pub(crate) fn start(side: Side, timeout: Duration) -> Self {
        let (daemon, client) = match side {
            Side::Reference => {
                let engine = Reference::with_bridge(&outside::group());
                let client = Buildx::of_docker(&engine.endpoint());
                (Daemon::Reference(engine), client)
            }
            Side::Ours => {
                let serve = Serve::up();
                let server = serve.start();
                let client = Buildx::new(&server.endpoint());
                (Daemon::Ours { serve, server }, client)
            }
        };
        Self {
            client,
            daemon,
            timeout,
            _link: None,
        }
    }

    /// Puts a link between it and its client.
    pub(crate) fn over(mut self, link: Link) -> anyhow::Result<Self> {
        let relay = Relay::open(self.address(), link)?;
        let endpoint = format!("tcp://127.0.0.1:{}", relay.port());
        self.client = match self.side() {
            Side::Reference => Buildx::of_docker(&endpoint),
            Side::Ours => Buildx::new(&endpoint),
        };
        self._link = Some(relay);
        Ok(self)
    }

    /// Lets its client load images into the Docker engine of `other`.
    pub(crate) fn loading_into(mut self, other: Option<&Self>) -> Self {
        if let Some(Daemon::Reference(engine)) = other.map(|other| &other.daemon) {
            self.client = self.client.with_docker(&engine.endpoint());
        }
        self
    }

    /// Which one it is.
    pub(crate) fn side(&self) -> Side {
        match self.daemon {
            Daemon::Reference(_) => Side::Reference,
            Daemon::Ours { .. } => Side::Ours,
        }
    }

    /// What stands behind `--builder`.
    fn builder(&self) -> &'static str {
        match self.daemon {
            Daemon::Reference(_) => "default",
            Daemon::Ours { .. } => "farm",
        }
    }

    /// One build; returns its wall time.
    pub(crate) fn build(&self, build: &Build) -> anyhow::Result<f64> {
        Ok(self.build_all(std::slice::from_ref(build))?.seconds)
    }

    /// Several builds at once, each by a client of its own.
    pub(crate) fn build_all(&self, builds: &[Build]) -> anyhow::Result<Timed> {
        let command = |build: &Build| {
            let words = build.words(self.builder());
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            self.client.command(&words)
        };
        time(builds.iter().map(command).collect(), self.timeout)
    }

    /// Where it listens.
    fn address(&self) -> Address {
        match &self.daemon {
            Daemon::Reference(engine) => Address::Socket(engine.socket()),
            Daemon::Ours { server, .. } => {
                let endpoint = server.endpoint();
                Address::Tcp(endpoint.trim_start_matches("tcp://").to_owned())
            }
        }
    }

    /// The folder that it keeps everything in.
    pub(crate) fn data(&self) -> PathBuf {
        match &self.daemon {
            Daemon::Reference(engine) => engine.data(),
            Daemon::Ours { server, .. } => server.data(),
        }
    }

    /// Its processes: to be asked while nothing is built, so that no step's is among them.
    pub(crate) fn processes(&self) -> Tree {
        processes::tree(match &self.daemon {
            Daemon::Reference(engine) => engine.pid(),
            Daemon::Ours { server, .. } => server.pid(),
        })
    }

    /// Stops it; its data stays.
    pub(crate) fn stop(&mut self) {
        match &mut self.daemon {
            Daemon::Reference(engine) => engine.stop(),
            Daemon::Ours { server, .. } => {
                server.stop();
            }
        }
    }

    /// Starts it again on its data; returns how long it took until it was ready, in seconds.
    pub(crate) fn start_again(&mut self) -> anyhow::Result<f64> {
        let start = Instant::now();
        match &mut self.daemon {
            Daemon::Reference(engine) => engine.start_again(),
            Daemon::Ours { serve, server } => *server = serve.spawn(),
        }
        while !self.is_ready() {
            ensure!(
                start.elapsed() < START,
                "{} is not ready after {START:?}",
                self.side().name()
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(start.elapsed().as_secs_f64())
    }

    fn is_ready(&self) -> bool {
        match &self.daemon {
            Daemon::Reference(engine) => engine.is_up(),
            Daemon::Ours { server, .. } => server.status("/readyz") == Some(200),
        }
    }
}

/// Where an engine listens.
#[derive(Debug, Clone)]
pub(crate) enum Address {
    /// A socket in the file system.
    Socket(PathBuf),
    /// `HOST:PORT`.
    Tcp(String),
}
