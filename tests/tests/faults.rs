//! Promise: a server that is stopped keeps its word to the builds under way; what cannot be run is refused or waited for.

use buildyard_tests::{Farm, Mark, Serve};
use rustix::process::Signal;

#[test]
fn a_stopping_server_lets_builds_end_within_its_grace() {
    let mut farm = Farm::serving(&Serve::up().grace(600));
    let held = Mark::new();
    let context = farm.context(&format!("FROM BASE\n{}\n", held.run_held("true")));
    let running = farm.buildx.start(&context, &[]);
    held.wait_runs(&[&farm.server], 1);
    farm.server.process().signal(Signal::TERM);
    farm.wait_logged("no new builds are taken", 1);
    farm.buildx
        .build(&farm.context("FROM BASE\nRUN true\n"), &[])
        .fails()
        .says("takes no new builds");
    held.let_go(&farm.server);
    running.finish().succeeds();
    assert!(farm.server.stop().success());
}

#[test]
fn a_build_beyond_the_grace_is_cancelled_and_leaves_nothing_behind() {
    let mut farm = Farm::serving(&Serve::up().grace(1));
    let held = Mark::new();
    let context = farm.context(&format!("FROM BASE\n{}\n", held.run_held("true")));
    let running = farm.buildx.start(&context, &[]);
    held.wait_runs(&[&farm.server], 1);
    assert!(farm.server.stop().success());
    running.finish().fails().says("the coordinator is stopping");
    assert!(!held.is_running());
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("reading the mounts");
    let below = farm.server.data().display().to_string();
    assert!(!mounts.contains(&below), "{mounts}");
}

#[test]
fn what_nobody_can_run_is_refused_with_what_the_farm_can() {
    let farm = Farm::serving(&Serve::coordinator());
    let _one = farm.worker("one", "linux/amd64");
    let context = farm.context("FROM BASE\nRUN true\n");
    let outcome = farm.buildx.build(&context, &["--platform", "linux/arm64"]);
    outcome
        .fails()
        .says("no worker can run linux/arm64; the farm runs linux/amd64");
}

#[test]
fn a_job_waits_for_a_worker_that_is_away() {
    let farm = Farm::serving(&Serve::coordinator());
    let mut one = farm.worker("one", "linux/amd64");
    assert!(one.stop().success());
    let context = farm.context("FROM BASE\nRUN echo back\n");
    let waiting = farm.buildx.start(&context, &[]);
    farm.wait_logged("waiting for one to come back", 1);
    let _back = farm.worker("one", "linux/amd64");
    waiting.finish().succeeds();
}

#[test]
fn a_second_worker_on_the_same_data_is_refused_and_the_first_goes_on() {
    let farm = Farm::serving(&Serve::coordinator());
    let first = farm.worker("first", "linux/amd64");
    let data = first.data().display().to_string();
    let url = farm.server.url();
    let second = std::process::Command::new(buildyard_tests::buildyard())
        .args([
            "worker", "--join", &url, "--name", "second", "--data", &data,
        ])
        .output()
        .expect("running buildyard");
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(3), "{said}");
    assert!(said.contains("is in use by"), "{said}");
    farm.build("FROM BASE\nRUN true\n", &[]).succeeds();
}
