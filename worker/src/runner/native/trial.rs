//! Whether containers really work on this machine: the smallest program is run in one.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use super::Launcher;
use crate::emulation::{TRIAL_EXIT_CODE, native_program};
use crate::network::StepNetwork;
use crate::runner::stage::on_stage;
use crate::runner::supervise::{Launch, Output, Watched};
use crate::runner::{ContainerSpec, Exit, Limits, Process, RunnerError, Security};
use crate::snapshots::{MountSource, MountSpec, Mounts};

const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a container whose root is a directory in `dir`.
pub(super) fn run(launcher: &Launcher, dir: &Path) -> Result<(), RunnerError> {
    let root = dir.join("trial");
    let failed = || RunnerError::prepare("making ready a container for a trial");
    let program = native_program()
        .ok_or_else(|| io::Error::other("no program for this processor"))
        .map_err(failed())?;
    fs::create_dir_all(&root).map_err(failed())?;
    let path = root.join("program");
    fs::write(&path, program).map_err(failed())?;
    fs::set_permissions(&path, Permissions::from_mode(0o755)).map_err(failed())?;
    match ended(launcher, &spec(&root))? {
        Exit::Code(TRIAL_EXIT_CODE) => Ok(()),
        other => Err(RunnerError::Start(format!(
            "a program that exits with {TRIAL_EXIT_CODE} ended with {other:?}"
        ))),
    }
}

fn ended(launcher: &Launcher, spec: &ContainerSpec) -> Result<Exit, RunnerError> {
    let failed = || RunnerError::prepare("running a container for a trial");
    let (stdout, stdout_end) = io::pipe().map_err(failed())?;
    let (stderr, stderr_end) = io::pipe().map_err(failed())?;
    let output = Output {
        stdout: stdout_end,
        stderr: stderr_end,
    };
    let watched = Watched::default();
    let (say, hear) = mpsc::channel();
    let result = std::thread::scope(|scope| {
        scope.spawn(|| {
            let ended = on_stage(launcher.steps(), spec, |stage| {
                launcher.launch(stage, output, &watched)
            });
            // The other side waits for it, or has given up.
            let _ = say.send(ended.map(|(exit, _)| exit));
            drop(say);
        });
        hear.recv_timeout(PATIENCE).unwrap_or_else(|error| {
            watched.kill();
            Err(RunnerError::Abandoned(format!("a trial: {error}")))
        })
    });
    drop((stdout, stderr));
    result
}

fn spec(root: &Path) -> ContainerSpec {
    ContainerSpec {
        id: format!("trial-{}", hex::encode(rand::random::<[u8; 8]>())),
        root: Mounts::unheld(vec![MountSpec::new(MountSource::Bind {
            path: root.to_owned(),
            read_only: false,
        })]),
        read_only_root: false,
        mounts: Vec::new(),
        process: Process {
            args: vec!["/program".to_owned()],
            cwd: "/".to_owned(),
            ..Process::default()
        },
        hostname: "buildkitsandbox".to_owned(),
        hosts: String::new(),
        resolv_conf: String::new(),
        network: StepNetwork::None,
        security: Security::Sandbox,
        limits: Limits::default(),
        user_namespace: None,
    }
}
