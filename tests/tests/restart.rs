//! Promise: a coordinator that stops says so and leaves nothing running; one that is killed costs no step; both keep the
//! cache and the history.

use buildyard_tests::{
    Context, Farm, Mark, PLATFORMS, Running, Serve, Server, native_architecture,
};

/// What the server writes when a job goes to a worker.
const HANDED_OUT: &str = "a job has a worker";

fn native() -> String {
    format!("linux/{}", native_architecture())
}

/// The newest build in the history, in full.
fn newest(farm: &Farm) -> serde_json::Value {
    let list = farm.server.cli(&["builds", "--format", "json"]);
    let list: serde_json::Value = serde_json::from_str(&list).expect("a list");
    let id = list[0]["id"].as_str().expect("the id of a build");
    let build = farm.server.cli(&["builds", "show", id, "--format", "json"]);
    serde_json::from_str(&build).expect("a build")
}

/// Starts a build of two steps and returns when the worker runs the second one, which is held.
fn start(
    farm: &Farm,
    worker: &Server,
    earlier: &Mark,
    held: &Mark,
    command: &str,
) -> (Context, Running) {
    let (first, second) = (earlier.run("true"), held.run_held(command));
    let context = farm.context(&format!("FROM BASE\n{first}\n{second}\n"));
    let build = farm.buildx.start(&context, &[]);
    held.wait_runs(&[worker], 1);
    (context, build)
}

#[test]
fn a_coordinator_that_stops_says_so_and_its_steps_end_on_their_workers() {
    let serve = Serve::coordinator().grace(1);
    let mut farm = Farm::serving(&serve);
    let one = farm.worker("one", &native());
    let (earlier, held) = (Mark::new(), Mark::new());
    let (context, build) = start(&farm, &one, &earlier, &held, "true");

    assert!(farm.server.stop().success(), "{}", farm.server.log());
    // No worker stops a step for silence: it was told to, while the connection was there.
    held.wait_ended();
    build.finish().fails().says("the coordinator is stopping");

    farm.server = serve.start();
    farm.wait_connected("one");
    let build = newest(&farm);
    assert_eq!(build["outcome"], "canceled", "{build}");
    let error = build["error"].as_str().expect("its reason");
    assert!(error.contains("the coordinator is stopping"), "{build}");

    // What was done is kept, what was stopped is run again: its claim is in nobody's way.
    held.let_go(&one);
    farm.buildx.build(&context, &[]).succeeds();
    assert_eq!((earlier.runs(&[&one]), held.runs(&[&one])), (1, 2));
}

#[test]
fn a_killed_coordinators_step_goes_on_and_the_next_build_takes_its_result() {
    let serve = Serve::coordinator();
    let mut farm = Farm::serving(&serve);
    let one = farm.worker("one", &native());
    let (earlier, held) = (Mark::new(), Mark::new());
    let (context, build) = start(&farm, &one, &earlier, &held, "echo done > /done");

    farm.server.kill();
    build.finish().fails();
    farm.server = serve.start();
    farm.wait_connected("one");
    assert!(held.is_running());
    assert_eq!(newest(&farm)["outcome"], "interrupted");

    let name = farm.name("restarted:1");
    let jobs = farm.logged(HANDED_OUT);
    let again = farm.buildx.start(&context, &["--push", "-t", &name]);
    // It has come as far as the step, which is still running.
    farm.wait_logged(HANDED_OUT, jobs + 1);
    held.let_go(&one);
    again.finish().succeeds();
    assert_eq!((earlier.runs(&[&one]), held.runs(&[&one])), (1, 1));
    let image = buildyard_tests::Image::pull(&name, native_architecture());
    assert_eq!(image.text("done"), "done\n");
}

#[test]
fn a_restart_keeps_the_cache_and_the_history() {
    let serve = Serve::up();
    let mut farm = Farm::serving(&serve);
    let mark = Mark::new();
    let said = mark.run("echo the answer is $((6 * 7))");
    let context = farm.context(&format!("FROM BASE\nCOPY file /\n{said}\n"));
    let name = farm.name("kept:1");
    let args = ["--platform", PLATFORMS, "--push", "-t", &name];
    farm.buildx.build(&context, &args).succeeds();
    let mut before = newest(&farm);
    assert_eq!(before["outcome"], "succeeded", "{before}");
    let first = before["id"].as_str().expect("its id").to_owned();
    let logs = |farm: &Farm| farm.server.cli(&["builds", "logs", &first]);
    let output = logs(&farm);
    // Once for each platform.
    assert_eq!(output.matches("the answer is 42").count(), 2, "{output}");
    for kill in [false, true] {
        if kill {
            farm.server.kill();
        } else {
            assert!(farm.server.stop().success());
        }
        farm.server = serve.start();
        assert_eq!(newest(&farm), before);
        assert_eq!(logs(&farm), output);
        let again = farm.buildx.build(&context, &args).succeeds();
        assert!(again.executed().is_empty(), "{:?}", again.executed());
        assert_eq!(mark.runs(&[&farm.server]), 2);
        before = newest(&farm);
    }
}
