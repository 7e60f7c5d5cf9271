//! A step with all rights may freeze its own control group. It ends all the same.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tokio_util::sync::CancellationToken;

use super::suite::{mark, processes};
use super::tests::DOOMED;
use super::*;
use crate::snapshots::Snapshotter;
use crate::testing::{Machine, until};

/// Starts a process to be frozen with it, and freezes the step.
fn script(mark: &str) -> String {
    format!("sleep {mark} & echo FROZEN > /sys/fs/cgroup/freezer/freezer.state; sleep {mark}")
}

/// The group that a step freezes, as the machine sees it.
fn group(id: &str) -> PathBuf {
    Path::new("/sys/fs/cgroup/freezer/buildyard").join(id)
}

fn is_frozen(id: &str) -> bool {
    let state = fs::read_to_string(group(id).join("freezer.state"));
    state.is_ok_and(|state| state.trim() == "FROZEN")
}

#[tokio::test]
async fn a_frozen_step_can_be_cancelled() {
    let machine = Machine::with(&RunnerChoice::Native);
    let chain = [machine.busybox()];
    let upper = machine.snapshots.new_upper(&chain).unwrap();
    let mark = mark();
    let mut spec = machine.spec(&chain, &upper, &script(&mark));
    spec.security = Security::Insecure;
    let id = spec.id.clone();
    let cancel = CancellationToken::new();
    let stop = async {
        until("the frozen step", || is_frozen(&id)).await;
        cancel.cancel();
    };
    let (result, ()) = tokio::join!(machine.run_spec(spec, cancel.clone()), stop);
    assert_eq!(result.unwrap().0.exit, Exit::Cancelled);
    assert_eq!(processes(&format!("sleep\0{mark}\0")), 0);
    assert!(!group(&id).exists());
}

#[tokio::test]
async fn a_killed_workers_frozen_step_ends_too() {
    let dir = tempfile::tempdir().unwrap();
    let mark = mark();
    let mut worker = Command::new("/proc/self/exe")
        .arg(DOOMED)
        .args([
            dir.path().as_os_str(),
            script(&mark).as_ref(),
            "insecure".as_ref(),
        ])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let steps = dir.path().join("run/native/steps");
    let ids = || -> Vec<String> {
        let entries = fs::read_dir(&steps).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        // The trial of the runner is over before the step begins.
        names.filter(|name| name.starts_with("test-")).collect()
    };
    until("the frozen step", || ids().iter().any(|id| is_frozen(id))).await;
    let id = ids().remove(0);
    worker.kill().unwrap();
    worker.wait().unwrap();
    until("its end", || {
        processes(&format!("sleep\0{mark}\0")) == 0 && !group(&id).exists()
    })
    .await;
}
