//! Promise: a step that two clients ask for at the same time runs once.

use buildyard_tests::{
    Buildx, Context, Image, Registry, Serve, native_architecture, push_base_image,
};

/// Writes [`BEGUN`], which the step's own text does not have.
const BEGIN: &str = "echo WE HAVE BEGUN | tr A-Z a-z";
const BEGUN: &str = "we have begun";

#[test]
fn two_clients_share_a_running_step() {
    let registry = Registry::start();
    let base = push_base_image(&registry);
    let farm = Serve::up().start();
    // The cache mount outlives the step: a second run would leave a second line.
    let dockerfile = format!(
        "FROM {base}\nRUN --mount=type=cache,target=/c echo run >> /c/runs; {BEGIN}; sleep 3; cp /c/runs /runs\n"
    );
    let context = Context::new(&[("Dockerfile", &dockerfile)]);
    let clients = [Buildx::new(&farm.endpoint()), Buildx::new(&farm.endpoint())];
    let names = ["one", "two"].map(|name| format!("{}/{name}:1", registry.host()));

    let mut first = clients[0].start(&context, &["--push", "-t", &names[0]]);
    first.wait_says(BEGUN);
    let mut second = clients[1].start(&context, &["--push", "-t", &names[1]]);
    second.wait_says("RUN --mount");
    first.finish().succeeds();
    second.finish().succeeds();

    for name in &names {
        assert_eq!(
            Image::pull(name, native_architecture()).text("runs"),
            "run\n"
        );
    }
}

#[test]
fn a_step_goes_on_while_somebody_wants_it() {
    let registry = Registry::start();
    let base = push_base_image(&registry);
    let farm = Serve::up().start();
    let dockerfile = format!(
        "FROM {base}\nRUN --mount=type=cache,target=/c echo run >> /c/runs; {BEGIN}; sleep 5; cp /c/runs /runs\n"
    );
    let context = Context::new(&[("Dockerfile", &dockerfile)]);
    let clients = [Buildx::new(&farm.endpoint()), Buildx::new(&farm.endpoint())];
    let name = format!("{}/two:1", registry.host());

    let mut first = clients[0].start(&context, &[]);
    first.wait_says(BEGUN);
    let mut second = clients[1].start(&context, &["--push", "-t", &name]);
    second.wait_says("RUN --mount");
    first.kill();
    second.finish().succeeds();

    assert_eq!(
        Image::pull(&name, native_architecture()).text("runs"),
        "run\n"
    );
}
