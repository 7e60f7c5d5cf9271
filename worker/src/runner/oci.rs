//! Containers by an OCI runtime program with `runc`'s command line.

use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use async_trait::async_trait;
use rustix::process::{Pid, PidfdFlags};
use tokio_util::sync::CancellationToken;

use super::cgroup::OomWatch;
use super::spec::ContainerSpec;
use super::stage::Stage;
use super::supervise::{Launch, Output, Supervisor, Watched};
use super::{Exit, Ran, Runner, RunnerError, StepIo};

/// How to run containers.
#[derive(Debug, Clone)]
pub struct OciRuntimeConfig {
    /// The runtime program, found on the PATH unless it has a slash.
    pub program: String,
    /// A directory for the runner alone; the steps' mount points are in it (nothing that they write is).
    pub dir: PathBuf,
}

/// The runner with `runc`.
pub struct OciRuntime(Supervisor<Runtime>);

impl OciRuntime {
    /// Checks that the program runs, and kills containers that an earlier process left behind.
    pub fn open(config: OciRuntimeConfig) -> Result<Self, RunnerError> {
        let missing = |source| RunnerError::Program {
            program: config.program.clone(),
            source,
        };
        let version = std::process::Command::new(&config.program)
            .arg("--version")
            .stdin(Stdio::null())
            .output();
        let version = version.map_err(missing)?;
        if !version.status.success() {
            return Err(missing(io::Error::other(
                String::from_utf8_lossy(&version.stderr).into_owned(),
            )));
        }
        let prepare =
            |dir: &PathBuf| RunnerError::prepare(format!("making ready {}", dir.display()));
        fs::create_dir_all(&config.dir).map_err(prepare(&config.dir))?;
        let dir = fs::canonicalize(&config.dir).map_err(prepare(&config.dir))?;
        if dir.to_str().is_none() {
            let error =
                io::Error::other("its path is not UTF-8, which container runtimes cannot handle");
            return Err(prepare(&dir)(error));
        }
        let runtime = Runtime {
            program: config.program,
            state: dir.join("state"),
            steps: dir.join("steps"),
        };
        sweep(&runtime).map_err(prepare(&dir))?;
        Ok(Self(Supervisor::new(runtime)))
    }

    /// Kills what runs and waits until nothing is left.
    pub async fn close(&self) {
        self.0.close().await;
    }
}

/// Kills leftover containers and removes their directories.
fn sweep(runtime: &Runtime) -> io::Result<()> {
    for dir in [&runtime.state, &runtime.steps] {
        fs::create_dir_all(dir)?;
    }
    for entry in fs::read_dir(&runtime.state)? {
        if let Ok(id) = entry?.file_name().into_string() {
            tracing::info!(
                container = id,
                "killing a container that an earlier process left behind"
            );
            runtime.delete(&id);
        }
    }
    for entry in fs::read_dir(&runtime.steps)? {
        fs::remove_dir_all(entry?.path())?;
    }
    Ok(())
}

#[async_trait]
impl Runner for OciRuntime {
    async fn run(
        &self,
        spec: ContainerSpec,
        io: StepIo,
        cancel: CancellationToken,
    ) -> Result<Ran, RunnerError> {
        self.0.run(spec, io, cancel).await
    }
}

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

#[async_trait]
impl Launch for Runtime {
    fn steps(&self) -> &Path {
        &self.steps
    }

    fn launch(
        &self,
        stage: &Stage<'_>,
        output: Output,
        watched: &Watched,
    ) -> Result<Exit, RunnerError> {
        let json = serde_json::to_vec(&stage.config)
            .map_err(|error| RunnerError::Start(error.to_string()))?;
        let file = stage.dir.join("config.json");
        fs::write(&file, json)
            .map_err(RunnerError::prepare(format!("writing {}", file.display())))?;
        let _container = Container {
            runtime: self,
            id: stage.id,
        };
        let watch = OomWatch::start();
        let status = start_and_wait(self, stage.id, &stage.dir, output, watched)?;
        let code = status
            .code()
            .or_else(|| status.signal().map(|signal| 128 + signal))
            .unwrap_or(-1);
        if let Some(message) = runtime_failure(&stage.dir.join("log.json"), code) {
            Err(RunnerError::Start(message))
        } else if code != 0 && watch.happened(&self.state.join(stage.id), code) {
            Ok(Exit::OutOfMemory { code })
        } else {
            Ok(Exit::Code(code))
        }
    }

    async fn kill(&self, id: &str, watched: &Watched, insist: bool) {
        let mut command = tokio::process::Command::from(self.command());
        command
            .args(["kill", id, "KILL"])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // No container yet, or none any more: the caller sees to both.
        let _ = command.status().await;
        if insist {
            // The runtime itself.
            watched.kill();
        }
    }

    fn clear(&self, id: &str) {
        self.delete(id);
    }
}

fn start_and_wait(
    runtime: &Runtime,
    id: &str,
    bundle: &Path,
    output: Output,
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
        command
            .stdin(Stdio::null())
            .stdout(output.stdout)
            .stderr(output.stderr);
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
