//! The farm that most tests begin with: a registry with the base image, `buildyard up`, and a client of it.

use std::time::Duration;

use crate::{Buildx, Context, Outcome, Registry, Serve, Server, push_base_image, wait_for};

const SOON: Duration = Duration::from_secs(60);

/// A registry with the base image, a server, and a real client whose builder it is.
#[derive(Debug)]
pub struct Farm {
    /// Where the base image lies, and where results may go.
    pub registry: Registry,
    /// The name of the base image.
    pub base: String,
    /// The server.
    pub server: Server,
    /// The client.
    pub buildx: Buildx,
}

impl Farm {
    /// `buildyard up`, as it comes.
    #[expect(clippy::new_without_default, reason = "it starts processes")]
    pub fn new() -> Self {
        Self::serving(&Serve::up())
    }

    /// Another server, or one with more arguments.
    pub fn serving(serve: &Serve) -> Self {
        Self::with(serve, Registry::start())
    }

    /// Another registry. The client is not logged in there.
    pub fn with_registry(registry: Registry) -> Self {
        Self::with(&Serve::up(), registry)
    }

    fn with(serve: &Serve, registry: Registry) -> Self {
        let base = push_base_image(&registry);
        let server = serve.start();
        let buildx = Buildx::new(&server.endpoint());
        Self {
            registry,
            base,
            server,
            buildx,
        }
    }

    /// A worker of its own, connected, that offers these platforms.
    pub fn worker(&self, name: &str, platforms: &str) -> Server {
        let worker = Serve::worker(&self.server.url(), name);
        let worker = worker.args(&["--platforms", platforms]).start();
        self.wait_connected(name);
        worker
    }

    /// Waits until the worker of this name is connected.
    pub fn wait_connected(&self, name: &str) {
        let line = |line: &str| line.starts_with(name) && line.contains("connected");
        wait_for(&format!("worker {name}"), SOON, || {
            let workers = self.server.cli(&["workers"]);
            workers.lines().any(line).then_some(())
        });
    }

    /// How often the server has written this text, also before it was started again.
    pub fn logged(&self, text: &str) -> usize {
        self.server.log().matches(text).count()
    }

    /// Waits until the server has written this text so often.
    pub fn wait_logged(&self, text: &str, times: usize) {
        wait_for(&format!("{text:?} in a log"), SOON, || {
            (self.logged(text) >= times).then_some(())
        });
    }

    /// Another client of the same server, which has nothing of the first one's.
    pub fn stranger(&self) -> Buildx {
        Buildx::new(&self.server.endpoint())
    }

    /// The name of a repository, or of an image, in the registry.
    pub fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.registry.host())
    }

    /// A Dockerfile in which `BASE` stands for the base image and `REGISTRY` for the registry.
    pub fn dockerfile(&self, text: &str) -> String {
        text.replace("BASE", &self.base)
            .replace("REGISTRY", &self.registry.host())
    }

    /// A context with such a Dockerfile, and a `file` with an `x` in it.
    pub fn context(&self, dockerfile: &str) -> Context {
        Context::new(&[("Dockerfile", &self.dockerfile(dockerfile)), ("file", "x")])
    }

    /// Builds such a Dockerfile with what is in `context`, and asserts that the server is alive afterwards.
    #[track_caller]
    pub fn build_in(&self, context: &Context, dockerfile: &str, args: &[&str]) -> Outcome {
        context.write("Dockerfile", &self.dockerfile(dockerfile));
        let outcome = self.buildx.build(context, args);
        assert_eq!(self.server.status("/livez"), Some(200));
        outcome
    }

    /// Builds such a Dockerfile in a new [`Self::context`].
    #[track_caller]
    pub fn build(&self, dockerfile: &str, args: &[&str]) -> Outcome {
        self.build_in(&self.context(dockerfile), dockerfile, args)
    }
}
