//! The suite of the runners, and what only one of them does.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::mount::UnmountFlags;
use tokio_util::sync::CancellationToken;

use super::suite::{self, mark, processes};
use super::*;
use crate::snapshots::Snapshotter;
use crate::testing::{Machine, until};

/// Makes a test of each function of the suite for one runner.
macro_rules! suite {
    ($runner:ident, $choice:expr, [$($test:ident),* $(,)?]) => {
        mod $runner {
            use super::*;
            $(
                #[tokio::test]
                async fn $test() {
                    suite::$test(&$choice).await;
                }
            )*
        }
    };
}

macro_rules! suites {
    ($($test:ident),* $(,)?) => {
        suite!(oci, RunnerChoice::Program("runc".to_owned()), [$($test),*]);
        suite!(native_runner, RunnerChoice::Native, [$($test),*]);
    };
}

suites![
    a_step_runs_and_what_it_wrote_is_in_its_upper_directory,
    the_user_the_directory_and_the_environment_are_as_asked,
    a_sandboxed_step_has_dockers_capabilities_and_no_more,
    dangerous_parts_of_the_machine_are_out_of_reach,
    without_a_network_there_is_only_the_loopback,
    files_for_names_are_mounted_and_leave_no_trace,
    secrets_and_memory_do_not_end_up_in_the_layer,
    a_selected_path_of_a_snapshot_can_be_mounted_and_does_not_lead_out,
    a_program_that_is_not_there_is_named,
    cancelling_kills_the_whole_tree_promptly,
    a_dropped_run_is_killed_too,
    being_killed_for_memory_is_said,
    long_output_is_clipped_and_the_step_goes_on,
    many_steps_run_at_once_and_leave_nothing,
];

#[tokio::test]
async fn containers_of_a_dead_worker_are_swept() {
    let machine = Machine::with(&RunnerChoice::Program("runc".to_owned()));
    let chain = [machine.busybox()];
    let upper = machine.snapshots.new_upper(&chain).unwrap();
    let mark = mark();
    let spec = machine.spec(&chain, &upper, &format!("sleep {mark}"));
    let run = machine.run_spec(spec, CancellationToken::new());
    let sweep = async {
        until("the sleeper", || {
            processes(&format!("sleep\0{mark}\0")) == 1
        })
        .await;
        // A runner that finds the state of this one, as it would after a restart.
        let dir = machine.dir.path().join("restarted");
        fs::create_dir(&dir).unwrap();
        std::os::unix::fs::symlink(machine.dir.path().join("run/state"), dir.join("state"))
            .unwrap();
        drop(
            OciRuntime::open(OciRuntimeConfig {
                program: "runc".to_owned(),
                dir,
            })
            .unwrap(),
        );
    };
    let (result, ()) = tokio::join!(run, sweep);
    assert_eq!(result.unwrap().0.exit, Exit::Code(137));
    assert_eq!(processes(&format!("sleep\0{mark}\0")), 0);
}

#[test]
fn a_machine_without_v1_groups_gets_the_runtime_program() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let opened = private::run("test", move || {
        // Where there is none the machine is such a one already.
        let _ = rustix::mount::unmount("/sys/fs/cgroup/devices", UnmountFlags::DETACH);
        let auto = Runners::open(&RunnerChoice::Auto, &path).unwrap();
        let native = Runners::open(&RunnerChoice::Native, &path).map(|_| ());
        (auto.describe(), native.unwrap_err())
    });
    let (auto, error) = opened.unwrap();
    assert_eq!(auto, "runc");
    let causes = format!("{error}: {:?}", std::error::Error::source(&error));
    assert!(causes.contains("devices controller"), "{causes}");
}

#[tokio::test]
async fn more_processes_than_allowed_are_refused() {
    for choice in [
        RunnerChoice::Native,
        RunnerChoice::Program("runc".to_owned()),
    ] {
        let machine = Machine::with(&choice);
        let script = "for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done";
        let said = machine
            .run(script, |spec| spec.limits.pids = Some(4))
            .await
            .unwrap();
        assert!(
            said.stderr.contains("can't fork"),
            "{choice:?}: {}",
            said.stderr
        );
    }
}

/// The hidden command of this test program that runs a step for ever.
pub(super) const DOOMED: &str = "doomed-worker";

/// Is a worker with one step, in the directory and with the command that the arguments say; `insecure` as a third one gives
/// it all rights.
pub(super) fn be_doomed(arguments: &[OsString]) {
    let [dir, script, security @ ..] = arguments else {
        panic!("a directory and a script are needed");
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let machine = Machine::at(Path::new(dir), &RunnerChoice::Native);
        let change = |spec: &mut ContainerSpec| {
            if security == ["insecure"] {
                spec.security = Security::Insecure;
            }
        };
        machine.run(script.to_str().unwrap(), change).await.unwrap();
    });
}

#[tokio::test]
async fn a_killed_worker_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mark = mark();
    let script =
        format!("sleep {mark} & (trap '' TERM HUP; sleep {mark} & sleep {mark}) & sleep {mark}");
    let mut worker = Command::new("/proc/self/exe")
        .arg(DOOMED)
        .arg(dir.path())
        .arg(script)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let sleepers = || processes(&format!("sleep\0{mark}\0"));
    until("the sleepers", || sleepers() == 4).await;
    let helpers = descendants(worker.id());
    assert!(
        helpers.len() >= 6,
        "two of the helper, four of the step: {helpers:?}"
    );
    // Nobody is told; nothing is cleaned up by hand.
    worker.kill().unwrap();
    assert_eq!(worker.wait().unwrap().signal(), Some(9));
    let here = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        !status.is_empty() && !status.contains("State:\tZ")
    };
    until("their end", || sleepers() == 0 && !helpers.iter().any(here)).await;
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(dir.path().to_str().unwrap()), "{mounts}");
    let steps = dir.path().join("run/native/steps");
    let id = fs::read_dir(&steps)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .file_name();
    for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap() {
        let group = hierarchy.unwrap().path().join("buildyard").join(&id);
        assert!(!group.exists(), "{}", group.display());
    }
    // The next worker.
    let next = Machine::at(dir.path(), &RunnerChoice::Native);
    assert_eq!(fs::read_dir(&steps).unwrap().count(), 0);
    next.runner.close().await;
}

/// The processes that a process started, and those that they did.
fn descendants(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    let lists =
        threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("children")).ok());
    let children: Vec<u32> = lists
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect();
    let below: Vec<u32> = children
        .iter()
        .flat_map(|child| descendants(*child))
        .collect();
    children.into_iter().chain(below).collect()
}

#[tokio::test]
async fn a_lost_helper_loses_its_steps_and_the_next_one_gets_a_new_one() {
    let machine = Machine::with(&RunnerChoice::Native);
    let chain = [machine.busybox()];
    let upper = machine.snapshots.new_upper(&chain).unwrap();
    let mark = mark();
    let spec = machine.spec(&chain, &upper, &format!("sleep {mark}"));
    let run = machine.run_spec(spec, CancellationToken::new());
    let kill = async {
        until("the sleeper", || {
            processes(&format!("sleep\0{mark}\0")) == 1
        })
        .await;
        // The inner one of the helper's two processes.
        let is_helper = |pid: &u32| {
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.contains(STEP_HELPER)
        };
        let helpers: Vec<u32> = descendants(std::process::id())
            .into_iter()
            .filter(is_helper)
            .collect();
        let [_, helper] = helpers[..] else {
            panic!("two processes: {helpers:?}");
        };
        let pid = rustix::process::Pid::from_raw(helper.cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    };
    let (result, ()) = tokio::join!(run, kill);
    let error = result.map(|(ran, ..)| ran).unwrap_err();
    assert!(matches!(error, RunnerError::Abandoned(_)), "{error}");
    assert_eq!(processes(&format!("sleep\0{mark}\0")), 0);
    let said = machine.run("echo again", |_| {}).await.unwrap();
    assert_eq!(said.stdout, "again\n");
}

#[tokio::test]
async fn a_command_that_may_open_no_more_files_starts() {
    let machine = Machine::with(&RunnerChoice::Native);
    let said = machine
        .run("echo started; exec 9< /dev/null", |spec| {
            spec.process.rlimits = vec![Rlimit {
                name: "nofile".to_owned(),
                soft: 3,
                hard: 3,
            }];
        })
        .await
        .unwrap();
    assert_eq!(said.stdout, "started\n", "{}", said.stderr);
    assert_ne!(said.ran.exit, Exit::Code(0));
}

/// Prints what a trivial step costs with each runner; asserts nothing about it.
#[tokio::test]
#[ignore = "it measures: cargo test -p buildyard-worker the_price_of_a_step -- --ignored --nocapture"]
async fn the_price_of_a_step() {
    const STEPS: usize = 30;
    let choices = [
        RunnerChoice::Program("runc".to_owned()),
        RunnerChoice::Native,
    ];
    let machines = choices.each_ref().map(Machine::with);
    let mut taken = [Vec::new(), Vec::new()];
    for _ in 0..STEPS {
        for (machine, taken) in machines.iter().zip(&mut taken) {
            let chain = [machine.busybox()];
            let upper = machine.snapshots.new_upper(&chain).unwrap();
            let spec = machine.spec(&chain, &upper, "true");
            let begun = std::time::Instant::now();
            let (ran, ..) = machine
                .run_spec(spec, CancellationToken::new())
                .await
                .unwrap();
            taken.push(begun.elapsed());
            assert_eq!(ran.exit, Exit::Code(0));
        }
    }
    for (choice, taken) in choices.iter().zip(&mut taken) {
        taken.sort();
        let (least, median, most) = (taken[0], taken[STEPS / 2], taken[STEPS - 1]);
        println!("{choice:?}: least {least:.1?}, median {median:.1?}, most {most:.1?}");
    }
}
