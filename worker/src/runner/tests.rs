//! The suite of the runners, and what only one of them does.

use std::fs;

use tokio_util::sync::CancellationToken;

use super::suite::{self, processes};
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
    let mark = format!("{}", 300_000 + std::process::id());
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
