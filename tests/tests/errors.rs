//! Promise: what goes wrong is said clearly, to the client that asked, and the farm goes on.

use buildyard_tests::{Buildx, Context, Registry, Serve, Server, push_base_image};

struct Farm {
    registry: Registry,
    base: String,
    server: Server,
    buildx: Buildx,
}

impl Farm {
    fn new() -> Self {
        let registry = Registry::start();
        let base = push_base_image(&registry);
        let server = Serve::up().start();
        let buildx = Buildx::new(&server.endpoint());
        Self {
            registry,
            base,
            server,
            buildx,
        }
    }

    /// Builds a Dockerfile that must fail, and asserts that the client is told all of `texts`.
    #[track_caller]
    fn fails(&self, dockerfile: &str, args: &[&str], texts: &[&str]) {
        let dockerfile = dockerfile
            .replace("BASE", &self.base)
            .replace("REGISTRY", &self.registry.host());
        let context = Context::new(&[
            ("Dockerfile", &dockerfile),
            ("there.txt", "x"),
            ("ignored.txt", "x"),
            (".dockerignore", "ignored.txt\n"),
        ]);
        let outcome = self.buildx.build(&context, args).fails();
        texts
            .iter()
            .fold(outcome, |outcome, text| outcome.says(text));
        assert_eq!(self.server.status("/livez"), Some(200));
    }
}

#[test]
fn a_failing_command_shows_its_line_and_code() {
    let farm = Farm::new();
    farm.fails(
        "FROM BASE\nRUN echo before\nRUN echo the last words >&2; exit 42\n",
        &[],
        &[
            "exit code: 42",
            "the last words",
            "Dockerfile:3",
            ">>> RUN echo the last words",
        ],
    );
}

#[test]
fn mistakes_in_a_dockerfile_are_pointed_at() {
    let farm = Farm::new();
    farm.fails(
        "FROM BASE\nRUM true\n",
        &[],
        &["Dockerfile:2", "RUM", "RUN"],
    );
    farm.fails(
        "FROM BASE\nCOPY --form=x a b\n",
        &[],
        &["Dockerfile:2", "--form", "from"],
    );
    farm.fails(
        "FROM BASE AS a\nCOPY --from=b /x /x\n",
        &["--target", "nowhere"],
        &["nowhere"],
    );
    farm.fails(
        "FROM scratch\nCOPY missing.txt /\n",
        &[],
        &["missing.txt", "Dockerfile:2"],
    );
    farm.fails(
        "FROM scratch\nCOPY ignored.txt /\n",
        &[],
        &["ignored.txt", ".dockerignore"],
    );
}

#[test]
fn an_image_that_cannot_be_had_is_named() {
    let mut farm = Farm::new();
    farm.fails(
        "FROM REGISTRY/no/such:1\n",
        &[],
        &["no/such:1", "not found"],
    );
    farm.fails(
        "FROM BASE\nRUN true\n",
        &["--platform", "linux/s390x"],
        &["linux/s390x"],
    );
    farm.registry.stop();
    farm.fails("FROM REGISTRY/other/image:1\n", &[], &["other/image:1"]);
}

#[test]
fn a_platform_that_nobody_runs_is_refused_with_what_the_farm_can_do() {
    let registry = Registry::start();
    let base = push_base_image(&registry);
    let mut coordinator = Serve::coordinator().start();
    let native = format!("linux/{}", buildyard_tests::native_architecture());
    let _worker = Serve::worker(&coordinator.url(), "w1")
        .args(&["--platforms", &native])
        .start();
    coordinator.wait_workers(true);
    let foreign = match native.as_str() {
        "linux/amd64" => "linux/arm64",
        _ => "linux/amd64",
    };
    let context = Context::new(&[("Dockerfile", &format!("FROM {base}\nRUN true\n"))]);
    Buildx::new(&coordinator.endpoint())
        .build(&context, &["--platform", foreign])
        .fails()
        .says(foreign)
        .says(&native);
}
