//! Promise: a build survives the loss of a worker; a lost client ends its build, and nothing else.

use std::time::Duration;

use buildyard_tests::{
    Buildx, Context, Registry, Serve, Server, native_architecture, push_base_image, wait_for,
};

/// Writes [`BEGUN`], which the step's own text does not have.
const BEGIN: &str = "echo WE HAVE BEGUN | tr A-Z a-z";
const BEGUN: &str = "we have begun";

fn worker(coordinator: &Server, name: &str) -> Server {
    let native = format!("linux/{}", native_architecture());
    Serve::worker(&coordinator.url(), name)
        .args(&["--platforms", &native])
        .start()
}

fn wait_connected(coordinator: &Server, name: &str) {
    let connected = || {
        let workers = coordinator.cli(&["workers"]);
        workers
            .lines()
            .any(|line| line.starts_with(name) && line.contains("connected"))
            .then_some(())
    };
    wait_for(
        &format!("worker {name}"),
        Duration::from_secs(20),
        connected,
    );
}

#[test]
fn a_killed_workers_step_ends_on_another() {
    let registry = Registry::start();
    let base = push_base_image(&registry);
    let coordinator = Serve::coordinator().start();
    let mut first = worker(&coordinator, "first");
    wait_connected(&coordinator, "first");
    let dockerfile = format!(
        "FROM {base}\nRUN echo earlier > /earlier\nRUN {BEGIN}; sleep 6; cat /earlier > /out\n"
    );
    let context = Context::new(&[("Dockerfile", &dockerfile)]);
    let name = format!("{}/app:1", registry.host());
    let buildx = Buildx::new(&coordinator.endpoint());

    let mut build = buildx.start(&context, &["--push", "-t", &name]);
    build.wait_says(BEGUN);
    let _second = worker(&coordinator, "second");
    wait_connected(&coordinator, "second");
    first.kill();

    build.finish().succeeds();
    let image = buildyard_tests::Image::pull(&name, native_architecture());
    assert_eq!(image.text("out"), "earlier\n");
}

#[test]
fn a_killed_clients_step_is_stopped() {
    let registry = Registry::start();
    let base = push_base_image(&registry);
    let farm = Serve::up().start();
    let seconds = format!("{}", 1_000_000 + std::process::id());
    let dockerfile = format!("FROM {base}\nRUN {BEGIN}; sleep {seconds}\n");
    let context = Context::new(&[("Dockerfile", &dockerfile)]);
    let buildx = Buildx::new(&farm.endpoint());
    let mut build = buildx.start(&context, &[]);
    build.wait_says(BEGUN);
    assert!(runs(&seconds));

    build.kill();

    wait_for("the end of the step", Duration::from_secs(30), || {
        (!runs(&seconds)).then_some(())
    });
    assert_eq!(farm.status("/readyz"), Some(200));
    let dockerfile = format!("FROM {base}\nRUN true\n");
    buildx
        .build(&Context::new(&[("Dockerfile", &dockerfile)]), &[])
        .succeeds();
}

/// Whether a `sleep` of so many seconds runs anywhere on this machine.
fn runs(seconds: &str) -> bool {
    let processes = std::fs::read_dir("/proc").expect("the list of processes");
    let lines =
        processes.filter_map(|entry| std::fs::read(entry.ok()?.path().join("cmdline")).ok());
    let wanted = format!("sleep\0{seconds}\0").into_bytes();
    lines.into_iter().any(|line| line == wanted)
}
