//! Promise: scripts can tell from the exit code what went wrong: 1 what was asked, 2 the command line, 3 the farm, 130 the user.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use buildyard_tests::{Context, Scratch, Serve, Server, buildyard, wait_for};
use rustix::process::{Pid, Signal, kill_process};

fn command(builder: &str, args: &[&str]) -> Command {
    let mut command = Command::new(buildyard());
    command.args(args).env("BUILDYARD_BUILDER", builder);
    command
}

#[track_caller]
fn ends(builder: &str, args: &[&str], code: i32, text: &str) -> Output {
    let output = command(builder, args).output().expect("running buildyard");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}\n{errors}");
    assert!(
        errors.contains(text),
        "no {text:?} for {args:?} in:\n{errors}"
    );
    output
}

#[test]
fn the_exit_code_says_who_is_at_fault() {
    let server = Serve::up().start();
    let url = server.url();
    let context = Context::new(&[("Dockerfile", "FROM scratch\nCOPY file /\n"), ("file", "x")]);
    let path = context.arg();
    for builder in [url.clone(), server.endpoint(), url.replace("http://", "")] {
        ends(&builder, &["build", &path], 0, "");
    }
    ends(
        &url,
        &[
            "build",
            "--progress",
            "plain",
            "--provenance=false",
            "--cache-from",
            "r/x",
            &path,
        ],
        0,
        "not read",
    );
    ends(&url, &["build", "--frob", &path], 2, "--frob");
    ends(
        &url,
        &["build", "--provenance=true", &path],
        2,
        "attestations",
    );
    ends(&url, &["build", "-o", "type=frob", &path], 2, "frob");
    ends(&url, &["build", "--push", &path], 2, "--tag");
    ends("ftp://x", &["workers"], 2, "ftp://x");
    ends("http://127.0.0.1:9", &["build", &path], 3, "127.0.0.1:9");
    ends("unix:///no/such/socket", &["workers"], 3, "/no/such/socket");
    ends(&url, &["builds", "show", "nope"], 1, "nope");
    ends(&url, &["build", "--target", "nope", &path], 1, "nope");
    ends(&url, &["build", "/no/such/folder"], 1, "/no/such/folder");
    context.write("Dockerfile", "FROM scratch\nCOPPY file /\n");
    ends(&url, &["build", &path], 1, "COPPY file /\n^");
    ends(&url, &["build", &path], 1, ">>> COPPY");
    second_servers(&server);
}

/// Another process on the same data or the same port.
fn second_servers(server: &Server) {
    let data = server.data().display().to_string();
    let other = Scratch::new();
    let other = other.path().display().to_string();
    let url = server.url();
    let address = url.trim_start_matches("http://");
    ends(
        "",
        &["up", "--listen", "127.0.0.1:0", "--data", &data],
        3,
        "is in use by",
    );
    ends(
        "",
        &["up", "--listen", address, "--data", &other],
        3,
        "Address already in use",
    );
    ends(
        "",
        &["up", "--listen", "0.0.0.0:0", "--data", &other],
        2,
        "--allow-unauthenticated",
    );
    assert_eq!(server.status("/livez"), Some(200));
}

#[test]
fn an_interrupted_build_ends_with_130_and_is_recorded() {
    let registry = buildyard_tests::Registry::start();
    let base = buildyard_tests::push_base_image(&registry);
    let server = Serve::up().start();
    let context = Context::new(&[(
        "Dockerfile",
        &format!("FROM {base}\nRUN sleep 60\nRUN true\n"),
    )]);
    let mut child = command(
        &server.url(),
        &["build", "--progress", "plain", &context.arg()],
    )
    .stderr(Stdio::null())
    .spawn()
    .expect("starting buildyard");
    let builds = || server.cli(&["builds"]);
    let running = || server.log().contains("a job has a worker").then_some(());
    wait_for("the step to run", Duration::from_secs(60), running);
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    kill_process(pid.expect("a child has a pid"), Signal::INT).expect("interrupting it");
    assert_eq!(child.wait().expect("its end").code(), Some(130));
    let ended = || builds().contains("canceled").then_some(());
    wait_for("the record", Duration::from_secs(60), ended);
    let list = builds();
    let id = list.lines().nth(1).and_then(|line| line.split(' ').next());
    let shown = server.cli(&["builds", "show", id.expect("one build")]);
    assert!(!shown.contains("running"), "{shown}");
    assert!(
        !shown.contains(" 2/3 "),
        "a step's number is no platform:\n{shown}"
    );
}
