//! What a build promises when workers, clients or the coordinator go away in the middle of it.

use std::time::Duration;

use buildyard_tests::{
    Buildx, Context, Image, PLATFORMS, Registry, Running, Serve, Server, push_base_image, wait_for,
};
use rustix::process::{Pid, Signal, kill_process};

const SOON: Duration = Duration::from_secs(30);

/// Processes on this machine whose command line has this text. Steps run in containers of it.
fn processes(text: &str) -> Vec<i32> {
    let all = std::fs::read_dir("/proc").expect("reading /proc").flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let has = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        words.first().is_some_and(|word| word.ends_with(b"sleep"))
            && words.get(1) == Some(&text.as_bytes())
    };
    pids.filter(has).collect()
}

/// Waits until a step's `sleep` of this unusual length runs, or, with `running` false, until none does.
fn wait_sleep(seconds: &str, running: bool) {
    let what = format!("sleep {seconds} running: {running}");
    wait_for(&what, SOON, || {
        (processes(seconds).is_empty() != running).then_some(())
    });
}

fn end(client: Running) -> (Option<i32>, String) {
    let outcome = client.finish();
    (outcome.code, outcome.stderr)
}

/// A registry with a base image, a coordinator without workers, and a client.
struct Farm {
    registry: Registry,
    base: String,
    coordinator: Server,
    buildx: Buildx,
}

impl Farm {
    fn new(serve: &Serve) -> Self {
        let registry = Registry::start();
        let base = push_base_image(&registry);
        let coordinator = serve.start();
        let buildx = Buildx::new(&coordinator.endpoint());
        Self {
            registry,
            base,
            coordinator,
            buildx,
        }
    }

    fn worker(&self, name: &str, platforms: &str) -> Server {
        let serve = Serve::worker(&self.coordinator.url(), name).args(&["--platforms", platforms]);
        let worker = serve.start();
        let what = format!("worker {name}");
        let here = || {
            self.coordinator
                .cli(&["workers"])
                .lines()
                .any(|line| line.contains(name) && !line.contains("away"))
        };
        wait_for(&what, SOON, || here().then_some(()));
        worker
    }

    fn context(&self, steps: &str) -> Context {
        Context::new(&[
            ("Dockerfile", &format!("FROM {}\n{steps}\n", self.base)),
            ("file", "content\n"),
        ])
    }

    fn spawn(&self, context: &Context, args: &[&str]) -> Running {
        self.buildx.start(context, args)
    }

    fn name(&self, repository: &str) -> String {
        format!("{}/{repository}", self.registry.host())
    }
}

#[test]
fn each_worker_runs_its_platform_and_what_is_common_runs_once() {
    let farm = Farm::new(&Serve::coordinator());
    let one = farm.worker("one", "linux/amd64");
    let two = farm.worker("two", "linux/arm64");
    let base = &farm.base;
    let dockerfile = format!(
        "FROM --platform=$BUILDPLATFORM {base} AS made\nRUN uname -m > /made && head -c 300000 /dev/zero >> /made\n\
         FROM {base}\nCOPY --from=made /made /made\nRUN uname -m > /here && wc -c < /made > /size\n"
    );
    let context = Context::new(&[("Dockerfile", &dockerfile)]);
    let name = farm.name("split:1");
    let output = format!("type=image,name={name},push=true");
    let outcome = farm
        .buildx
        .build(&context, &["--platform", PLATFORMS, "--output", &output])
        .succeeds();
    let made: Vec<&str> = outcome
        .executed()
        .into_iter()
        .filter(|step| step.contains(" made "))
        .collect();
    assert_eq!(made.len(), 1, "{made:?}");
    let native = std::env::consts::ARCH;
    for (architecture, machine) in [("amd64", "x86_64"), ("arm64", "aarch64")] {
        let image = Image::pull(&name, architecture);
        assert_eq!(image.text("here").trim(), machine);
        assert!(image.text("made").starts_with(native));
        assert_eq!(
            image.text("size").trim(),
            (300_000 + native.len() + 1).to_string()
        );
    }
    drop((one, two));
}

#[test]
fn a_killed_worker_costs_its_step_and_nothing_that_was_finished() {
    let farm = Farm::new(&Serve::coordinator());
    let mut one = farm.worker("one", "linux/amd64");
    let context = farm.context(
        "RUN echo first > /first\nRUN sleep 97.31 & sleep 4; kill $!; echo second > /second",
    );
    let name = farm.name("killed:1");
    let output = format!("type=image,name={name},push=true");
    let child = farm.spawn(&context, &["--output", &output]);
    wait_sleep("97.31", true);
    let log = || farm.coordinator.log();
    let two = farm.worker("two", "linux/amd64");
    one.kill();
    let (code, text) = end(child);
    assert_eq!(code, Some(0), "{text}\n{}", log());
    assert!(text.contains("worker one is lost"), "{text}");
    let image = Image::pull(&name, "amd64");
    assert_eq!(
        (image.text("first"), image.text("second")),
        ("first\n".into(), "second\n".into())
    );
    drop(two);
    for pid in processes("97.31") {
        // The killed worker could not end it any more.
        let _ = kill_process(Pid::from_raw(pid).expect("a pid"), Signal::KILL);
    }
}

#[test]
fn a_step_belongs_to_all_builds_that_ask_for_it_and_ends_with_the_last() {
    let farm = Farm::new(&Serve::up());
    let context = farm.context("RUN echo begun; sleep 5.23; echo done");
    let first = farm.spawn(&context, &[]);
    wait_sleep("5.23", true);
    let step = processes("5.23");
    let second = farm.spawn(&context, &[]);
    wait_for("the second build at the step", SOON, || {
        let jobs = farm.coordinator.log().matches("a job has a worker").count();
        (jobs >= 2).then_some(())
    });
    first.kill();
    let (code, text) = end(second);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("begun") && text.contains("done"), "{text}");
    assert!(processes("5.23").is_empty());
    assert_eq!(step.len(), 1);
}

#[test]
fn a_step_that_nobody_wants_any_more_is_stopped_and_the_next_build_works() {
    let mut farm = Farm::new(&Serve::up());
    let context = farm.context("RUN sleep 98.47");
    let child = farm.spawn(&context, &[]);
    wait_sleep("98.47", true);
    child.kill();
    wait_sleep("98.47", false);
    farm.buildx.build(&farm.context("RUN true"), &[]).succeeds();
    assert!(farm.coordinator.stop().success());
}

#[test]
fn a_restarted_coordinator_keeps_cache_and_history_and_gets_its_workers_back() {
    let serve = Serve::coordinator();
    let mut farm = Farm::new(&serve);
    let _one = farm.worker("one", "linux/amd64");
    let done = farm.context("RUN echo kept");
    farm.buildx.build(&done, &[]).succeeds();
    let context_of_hanging = farm.context("RUN sleep 6.71");
    let hanging = farm.spawn(&context_of_hanging, &[]);
    wait_sleep("6.71", true);
    farm.coordinator.kill();
    let (code, text) = end(hanging);
    assert_ne!(code, Some(0), "{text}");
    farm.coordinator = serve.start();
    let builds = farm.coordinator.cli(&["builds"]);
    assert!(builds.contains("succeeded"), "{builds}");
    assert!(builds.contains("interrupted"), "{builds}");
    assert!(
        farm.buildx
            .build(&done, &[])
            .succeeds()
            .executed()
            .is_empty()
    );
    farm.coordinator.wait_workers(true);
    // The step went on under its claim: it is not run again.
    let again = farm
        .buildx
        .build(&farm.context("RUN sleep 6.71"), &[])
        .succeeds();
    assert!(!again.stderr.contains("is lost"), "{}", again.stderr);
}

#[test]
fn a_stopping_server_lets_builds_end_within_its_grace_and_cancels_the_rest() {
    let mut farm = Farm::new(&Serve::up());
    let context_of_running = farm.context("RUN sleep 3.19");
    let running = farm.spawn(&context_of_running, &[]);
    wait_sleep("3.19", true);
    farm.coordinator.process().signal(Signal::TERM);
    wait_for("that it stops", SOON, || {
        farm.coordinator
            .log()
            .contains("no new builds are taken")
            .then_some(())
    });
    farm.buildx.build(&farm.context("RUN true"), &[]).fails();
    let (code, text) = end(running);
    assert_eq!(code, Some(0), "{text}");
    assert!(farm.coordinator.stop().success());
}

#[test]
fn a_build_beyond_the_grace_is_cancelled_and_leaves_nothing_behind() {
    let mut farm = Farm::new(&Serve::up());
    let context_of_running = farm.context("RUN sleep 99.83");
    let running = farm.spawn(&context_of_running, &[]);
    wait_sleep("99.83", true);
    assert!(farm.coordinator.stop().success());
    let (code, text) = end(running);
    assert_ne!(code, Some(0), "{text}");
    wait_sleep("99.83", false);
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("reading the mounts");
    let below = farm.coordinator.data().display().to_string();
    assert!(!mounts.contains(&below), "{mounts}");
}

#[test]
fn what_nobody_can_run_is_refused_with_what_the_farm_can() {
    let farm = Farm::new(&Serve::coordinator());
    let _one = farm.worker("one", "linux/amd64");
    let context = farm.context("RUN true");
    let outcome = farm.buildx.build(&context, &["--platform", "linux/arm64"]);
    outcome
        .fails()
        .says("no worker can run linux/arm64; the farm runs linux/amd64");
}

#[test]
fn a_job_waits_for_a_worker_that_is_away() {
    let farm = Farm::new(&Serve::coordinator());
    let mut one = farm.worker("one", "linux/amd64");
    assert!(one.stop().success());
    let context_of_waiting = farm.context("RUN echo back");
    let waiting = farm.spawn(&context_of_waiting, &[]);
    wait_for("the waiting build", SOON, || {
        farm.coordinator
            .log()
            .contains("waiting for one to come back")
            .then_some(())
    });
    let _back = farm.worker("one", "linux/amd64");
    let (code, text) = end(waiting);
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn a_cached_build_needs_no_worker_not_even_for_another_registry() {
    let farm = Farm::new(&Serve::coordinator());
    let mut one = farm.worker("one", "linux/amd64");
    let context = farm.context("COPY file /file\nRUN cp /file /copy");
    let output = format!("type=image,name={},push=true", farm.name("cached:1"));
    farm.buildx
        .build(&context, &["--output", &output])
        .succeeds();
    assert!(one.stop().success());
    let other = Registry::start();
    let name = format!("{}/another:2", other.host());
    let output = format!("type=image,name={name},push=true");
    let again = farm
        .buildx
        .build(&context, &["--output", &output])
        .succeeds();
    assert!(again.executed().is_empty(), "{:?}", again.executed());
    assert_eq!(Image::pull(&name, "amd64").text("copy"), "content\n");
}
