//! Promise: a build survives the loss or the stop of a worker; a lost client ends its build, and nothing else.

use buildyard_tests::{Buildx, Farm, Image, Mark, Running, Serve, Server, native_architecture};
use rustix::process::Signal;

fn worker(farm: &Farm, name: &str) -> Server {
    farm.worker(name, &format!("linux/{}", native_architecture()))
}

/// Two clients that wait for one step, which runs for the first.
struct Two {
    farm: Farm,
    held: Mark,
    first: Running,
    second: Running,
}

impl Two {
    fn start() -> Self {
        let (farm, held) = (Farm::new(), Mark::new());
        let context = farm.context(&format!("FROM BASE\n{}\n", held.run_held("true")));
        let mut first = farm.buildx.start(&context, &[]);
        first.wait_says(&held.said());
        let other = Buildx::new(&farm.server.endpoint());
        let mut second = other.start(&context, &[]);
        second.wait_says(&held.said());
        assert_eq!(held.runs(&[&farm.server]), 1);
        Self {
            farm,
            held,
            first,
            second,
        }
    }
}

/// What the server writes when a build has ended without success.
const GIVEN_UP: &str = "build failed";

/// What the server writes when a job goes to a worker.
const HANDED_OUT: &str = "a job has a worker";

#[test]
fn a_killed_worker_costs_its_step_and_nothing_that_was_finished() {
    let farm = Farm::serving(&Serve::coordinator());
    let mut one = worker(&farm, "one");
    let (earlier, held) = (Mark::new(), Mark::new());
    let dockerfile = format!(
        "FROM BASE\n{}\n{}\n",
        earlier.run("echo earlier > /earlier"),
        held.run_held("cat /earlier > /later")
    );
    let context = farm.context(&dockerfile);
    let name = farm.name("killed:1");
    let build = farm.buildx.start(&context, &["--push", "-t", &name]);
    held.wait_runs(&[&one], 1);
    // From here on it is finished for the farm, not only for its worker.
    farm.wait_logged("a layer is published", 1);
    let two = worker(&farm, "two");

    one.kill();

    held.wait_runs(&[&two], 1);
    held.let_go(&two);
    build.finish().succeeds().says("worker one is lost");
    assert_eq!(
        Image::pull(&name, native_architecture()).text("later"),
        "earlier\n"
    );
    assert_eq!((earlier.runs(&[&one]), earlier.runs(&[&two])), (1, 0));
    assert_eq!((held.runs(&[&one]), held.runs(&[&two])), (1, 1));
}

#[test]
fn a_worker_that_is_stopped_ends_its_step_within_its_grace_and_the_step_is_not_run_again() {
    let farm = Farm::serving(&Serve::coordinator());
    let native = format!("linux/{}", native_architecture());
    let mut one = Serve::worker(&farm.server.url(), "one")
        .grace(600)
        .args(&["--platforms", &native])
        .start();
    farm.wait_connected("one");
    let held = Mark::new();
    let context = farm.context(&format!(
        "FROM BASE\n{}\n",
        held.run_held("echo done > /done")
    ));
    let name = farm.name("stopped:1");
    let build = farm.buildx.start(&context, &["--push", "-t", &name]);
    held.wait_runs(&[&one], 1);
    let two = worker(&farm, "two");
    let page = farm.server.page("/metrics").expect("the farm's state");
    let workers = format!("\nbuildyard_workers_connected{{platform=\"{native}\"}} 2\n");
    assert!(
        page.contains(&workers) && page.contains("\nbuildyard_builds_running 1\n"),
        "{page}"
    );

    let jobs = farm.logged(HANDED_OUT);
    one.process().signal(Signal::TERM);

    // The build goes on elsewhere, where the step is waited for.
    farm.wait_logged(HANDED_OUT, jobs + 1);
    assert!(held.is_running());
    held.let_go(&one);
    build.finish().succeeds();
    assert!(one.stop().success(), "{}", one.log());
    assert_eq!((held.runs(&[&one]), held.runs(&[&two])), (1, 0));
    assert_eq!(
        Image::pull(&name, native_architecture()).text("done"),
        "done\n"
    );
}

#[test]
fn who_waits_takes_over_when_the_worker_of_a_shared_step_is_lost() {
    let farm = Farm::serving(&Serve::coordinator());
    let mut one = worker(&farm, "one");
    let held = Mark::new();
    let context = farm.context(&format!("FROM BASE\n{}\n", held.run_held("true")));
    let mut first = farm.buildx.start(&context, &[]);
    first.wait_says(&held.said());
    let two = worker(&farm, "two");
    let other = Buildx::new(&farm.server.endpoint());
    let mut second = other.start(&context, &[]);
    second.wait_says(&held.said());

    one.kill();

    held.wait_runs(&[&two], 1);
    held.let_go(&two);
    first.finish().succeeds();
    second.finish().succeeds();
    assert_eq!((held.runs(&[&one]), held.runs(&[&two])), (1, 1));
}

#[test]
fn a_step_goes_on_while_somebody_wants_it() {
    let two = Two::start();
    two.first.kill();
    two.farm.wait_logged(GIVEN_UP, 1);
    assert!(two.held.is_running());
    two.held.let_go(&two.farm.server);
    two.second.finish().succeeds();
    assert_eq!(two.held.runs(&[&two.farm.server]), 1);
}

#[test]
fn a_step_that_nobody_wants_any_more_is_stopped_and_the_next_build_works() {
    let mut two = Two::start();
    two.first.kill();
    two.farm.wait_logged(GIVEN_UP, 1);
    two.second.kill();
    two.held.wait_ended();
    assert_eq!(two.held.runs(&[&two.farm.server]), 1);
    two.farm.build("FROM BASE\nRUN true\n", &[]).succeeds();
    assert!(two.farm.server.stop().success());
}
