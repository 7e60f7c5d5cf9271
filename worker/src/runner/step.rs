//! The life of one container, on a thread of its own whose mount namespace holds everything that is mounted for it.

use std::fs;
use std::io::{self, PipeWriter};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;

use rustix::process::{Pid, PidfdFlags};
use tokio_util::sync::CancellationToken;

use super::cgroup::OomWatch;
use super::config::config;
use super::prepare::{self, Stubs};
use super::spec::ContainerSpec;
use super::{Exit, RunnerError, private};

/// Where a runtime and its state are.
#[derive(Debug, Clone)]
pub(super) struct Runtime {
    /// The program: `runc`.
    pub(super) program: String,
    /// What it keeps about its containers.
    pub(super) state: PathBuf,
    /// Where steps find their mount points.
    pub(super) steps: PathBuf,
}

impl Runtime {
    /// The runtime's command line up to the subcommand.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.state).stdin(Stdio::null());
        command
    }

    /// Kills what is left of a container and forgets it; nothing if it is unknown.
    pub(super) fn delete(&self, id: &str) {
        if !self.state.join(id).exists() {
            return;
        }
        let output = self
            .command()
            .args(["delete", "--force", id])
            .stdout(Stdio::null())
            .output();
        match output {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                let message = String::from_utf8_lossy(&output.stderr).into_owned();
                tracing::warn!(
                    container = id,
                    message,
                    "the runtime could not delete a container"
                );
            }
            Err(error) => {
                tracing::warn!(container = id, %error, "the runtime could not be started")
            }
        }
    }
}

/// What the thread of a step shares with the task that watches over it.
#[derive(Debug, Default)]
pub(super) struct Watched {
    /// The runtime's process.
    pub(super) process: OnceLock<OwnedFd>,
}

/// Runs a container to its end; blocks. To be called on a thread of its own.
pub(super) fn run(
    runtime: &Runtime,
    spec: &ContainerSpec,
    output: (PipeWriter, PipeWriter),
    watched: &Watched,
    cancel: &CancellationToken,
) -> Result<(Exit, Vec<Vec<u8>>), RunnerError> {
    private::enter().map_err(RunnerError::prepare(
        "entering a mount namespace for the step",
    ))?;
    let dir = StepDir::create(runtime.steps.join(&spec.id))?;
    let mounts = prepare::mounts(spec, &dir.0)?;
    let root = dir.0.join("root");
    let stubs = Stubs::find(&root, &mounts);
    prepare::working_directory(&root, &spec.process.cwd, &spec.process.user).map_err(
        RunnerError::prepare(format!(
            "creating the working directory {}",
            spec.process.cwd
        )),
    )?;
    let network = spec.network.attach(spec.user_namespace.as_ref())?;
    let config = config(spec, &root, &mounts, &network)
        .map_err(|error| RunnerError::Start(error.to_string()))?;
    let json =
        serde_json::to_vec(&config).map_err(|error| RunnerError::Start(error.to_string()))?;
    let file = dir.0.join("config.json");
    fs::write(&file, json).map_err(RunnerError::prepare(format!("writing {}", file.display())))?;
    if cancel.is_cancelled() {
        return Ok((Exit::Cancelled, stubs.remove()));
    }

    let _container = Container {
        runtime,
        id: &spec.id,
    };
    let watch = OomWatch::start();
    let status = start_and_wait(runtime, &spec.id, &dir.0, output, watched)?;
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(-1);
    let exit = if cancel.is_cancelled() {
        Exit::Cancelled
    } else if let Some(message) = runtime_failure(&dir.0.join("log.json"), code) {
        return Err(RunnerError::Start(message));
    } else if code != 0 && watch.happened(&runtime.state.join(&spec.id), code) {
        Exit::OutOfMemory { code }
    } else {
        Exit::Code(code)
    };
    Ok((exit, stubs.remove()))
}

fn start_and_wait(
    runtime: &Runtime,
    id: &str,
    bundle: &Path,
    (stdout, stderr): (PipeWriter, PipeWriter),
    watched: &Watched,
) -> Result<ExitStatus, RunnerError> {
    let program = |source| RunnerError::Program {
        program: runtime.program.clone(),
        source,
    };
    let mut child = {
        let mut command = Command::new(&runtime.program);
        command
            .arg("--root")
            .arg(&runtime.state)
            .arg("--log")
            .arg(bundle.join("log.json"));
        command
            .args(["--log-format", "json", "run", "--keep", "--bundle"])
            .arg(bundle)
            .arg(id);
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        command.spawn().map_err(program)?
        // The command goes, and with it the worker's ends of the pipes.
    };
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(Ok(process)) = pid.map(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()))
    {
        // Set once per step: this is the only place.
        let _ = watched.process.set(process);
    }
    child.wait().map_err(program)
}

/// What the runtime says went wrong when it could not start the container.
fn runtime_failure(log: &Path, code: i32) -> Option<String> {
    if code == 0 {
        return None;
    }
    let text = fs::read_to_string(log).ok()?;
    let lines = text
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut errors = lines.filter(|line| {
        line.get("level")
            .is_some_and(|level| level == "error" || level == "fatal")
    });
    let message = errors.next_back()?.get("msg")?.as_str()?.to_owned();
    Some(
        message
            .strip_prefix("runc run failed: ")
            .map(str::to_owned)
            .unwrap_or(message),
    )
}

/// Deletes the container when it goes out of scope.
struct Container<'a> {
    runtime: &'a Runtime,
    id: &'a str,
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        self.runtime.delete(self.id);
    }
}

/// The directory that a step's mounts hang on. Outside of the step's mount namespace it is empty.
struct StepDir(PathBuf);

impl StepDir {
    fn create(path: PathBuf) -> Result<Self, RunnerError> {
        fs::create_dir(&path)
            .map_err(RunnerError::prepare(format!("creating {}", path.display())))?;
        Ok(Self(path))
    }
}

impl Drop for StepDir {
    fn drop(&mut self) {
        let gone = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
        let removed = gone
            .map_err(io::Error::from)
            .and_then(|()| fs::remove_dir(&self.0));
        if let Err(error) = removed {
            tracing::debug!(path = %self.0.display(), %error, "a step's directory stays until the worker starts again");
        }
    }
}
