//! Containers without a runtime program: the worker makes everything ready, a small helper process starts the container.
//!
//! A container is described by the same OCI configuration that a runtime program would get (`runner/config.rs`), on the same
//! stage. The worker turns it into a [`Plan`](plan::Plan) and makes control groups; the [helper](serve) makes a process in
//! new namespaces, which [becomes](init) the step's command. Worker and helper share a socket per container: by it the worker
//! hears what becomes of the container, and the helper learns that nobody waits for it any more.
//!
//! What it does not do: user namespaces, and machines that have only the unified hierarchy of control groups. Those are
//! left to an OCI runtime (`runner/choice.rs`).

mod config;
mod groups;
mod helper;
mod init;
mod message;
mod plan;
mod seccomp;
mod serve;
mod sys;
mod trial;

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

pub use serve::{STEP_HELPER, step_helper};

use super::cgroup::OomWatch;
use super::spec::ContainerSpec;
use super::stage::Stage;
use super::supervise::{Launch, Output, Supervisor, Watched};
use super::{Exit, Ran, Runner, RunnerError, StepIo};
use crate::network::Attachment;
use config::Config;
use groups::{Groups, Hierarchies};
use helper::Helper;
use message::Report;
use plan::Plan;
use seccomp::Filters;

/// The runner that needs no runtime program.
pub struct Native(Supervisor<Launcher>);

impl Native {
    /// Starts the step helper, kills what an earlier process left behind, and runs a container to see whether it works
    /// here. `dir` is a directory for this runner alone. Blocks.
    ///
    /// # Errors
    /// What is missing on this machine.
    pub fn open(dir: &Path) -> Result<Self, RunnerError> {
        let hierarchies =
            Hierarchies::find().map_err(RunnerError::prepare("looking for control groups"))?;
        let steps = dir.join("steps");
        let ready = || RunnerError::prepare(format!("making ready {}", dir.display()));
        fs::create_dir_all(&steps).map_err(ready())?;
        let steps = fs::canonicalize(&steps).map_err(ready())?;
        for entry in fs::read_dir(&steps).map_err(ready())? {
            let entry = entry.map_err(ready())?;
            if let Ok(id) = entry.file_name().into_string()
                && !hierarchies.sweep(&groups_of(&id))
            {
                // By its name the next worker finds what is left.
                continue;
            }
            fs::remove_dir_all(entry.path()).map_err(ready())?;
        }
        let launcher = Launcher {
            hierarchies,
            steps,
            home: File::open("/proc/thread-self/ns/mnt").map_err(ready())?,
            helper: Mutex::default(),
            filters: Filters::default(),
        };
        trial::run(&launcher, dir)?;
        Ok(Self(Supervisor::new(launcher)))
    }

    /// Kills what runs and waits until nothing is left.
    pub async fn close(&self) {
        self.0.close().await;
    }
}

#[async_trait]
impl Runner for Native {
    async fn run(
        &self,
        spec: ContainerSpec,
        io: StepIo,
        cancel: CancellationToken,
    ) -> Result<Ran, RunnerError> {
        self.0.run(spec, io, cancel).await
    }
}

struct Launcher {
    hierarchies: Hierarchies,
    steps: PathBuf,
    /// The mount namespace that the worker lives in.
    home: File,
    /// The helper that is ready now.
    helper: Mutex<Option<Arc<Helper>>>,
    filters: Filters,
}

#[async_trait]
impl Launch for Launcher {
    fn steps(&self) -> &Path {
        &self.steps
    }

    fn launch(
        &self,
        stage: &Stage<'_>,
        output: Output,
        watched: &Watched,
    ) -> Result<Exit, RunnerError> {
        let unknown = |error: serde_json::Error| {
            RunnerError::Start(format!("the native runner cannot do it: {error}"))
        };
        let config = serde_json::to_value(&stage.config).map_err(unknown)?;
        let config: Config = serde_json::from_value(config).map_err(unknown)?;
        let groups = Groups::create(
            &self.hierarchies,
            &config.linux.cgroups_path,
            &config.linux.resources,
        )
        .map_err(RunnerError::prepare("making the step's control groups"))?;
        let plan = Plan::new(stage.id, config, &groups, &self.filters)
            .map_err(|error| RunnerError::Start(error.to_string()))?;
        let watch = OomWatch::start();
        let report = self
            .send(plan, stage, &groups, output)
            .map_err(RunnerError::prepare(
                "asking the step helper for a container",
            ))?;
        let ended = attend(report, watched, &groups)?;
        let killed = |code: i32| {
            let memory = groups.memory();
            code != 0 && watch.happened_in(memory.as_deref(), code)
        };
        match ended {
            Ended::Command(code) if killed(code) => Ok(Exit::OutOfMemory { code }),
            Ended::Command(code) => Ok(Exit::Code(code)),
            Ended::Failed(text) => Err(RunnerError::Start(text)),
            Ended::Early(code) if killed(code) => Ok(Exit::OutOfMemory { code }),
            Ended::Early(code) => Err(RunnerError::Start(format!(
                "the container's first process ended with {code} before it executed the command"
            ))),
            Ended::Lost => Err(RunnerError::Abandoned(
                "the step helper ended, and the container with it".to_owned(),
            )),
        }
    }

    async fn kill(&self, id: &str, watched: &Watched, insist: bool) {
        // The first process of a process-id namespace: the kernel ends the others with it.
        watched.kill();
        if insist {
            self.hierarchies.kill(&groups_of(id));
        } else {
            self.hierarchies.thaw(&groups_of(id));
        }
    }

    fn clear(&self, id: &str) {
        self.hierarchies.sweep(&groups_of(id));
    }
}

impl Launcher {
    /// Sends a plan and what belongs to it. Returns the socket on which the container's fate is reported.
    fn send(
        &self,
        mut plan: Plan,
        stage: &Stage<'_>,
        groups: &Groups<'_>,
        output: Output,
    ) -> io::Result<OwnedFd> {
        let entrances = groups.entrances()?;
        let unified = groups.unified()?;
        plan.entrances = entrances.len();
        plan.unified = unified.is_some();
        let memory = message::write_plan(&plan)?;
        let (report, theirs) = sys::socket_pair()?;
        let here = File::open("/proc/thread-self/ns/mnt")?;
        let network = match &stage.network {
            Attachment::Joined(link) => Some(File::open(link.path())?),
            Attachment::Host | Attachment::Isolated => None,
        };
        let mut files: Vec<BorrowedFd<'_>> = vec![memory.as_fd(), theirs.as_fd()];
        files.extend([output.stdout.as_fd(), output.stderr.as_fd(), here.as_fd()]);
        files.extend(network.as_ref().map(AsFd::as_fd));
        files.extend(unified.as_ref().map(AsFd::as_fd));
        files.extend(entrances.iter().map(AsFd::as_fd));
        let helper = self.helper()?;
        match helper.send(&files) {
            Err(error) if helper::is_gone(&error) => {
                tracing::warn!(%error, "the step helper is gone; starting another one");
                self.forget(helper);
                self.helper()?.send(&files)?;
            }
            // Of this step alone: others run on.
            other => other?,
        }
        Ok(report)
    }

    /// The helper, which is started if there is none.
    fn helper(&self) -> io::Result<Arc<Helper>> {
        let mut helper = self.helper.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(helper) = &*helper {
            return Ok(helper.clone());
        }
        let started = Arc::new(Helper::start(&self.home)?);
        *helper = Some(started.clone());
        Ok(started)
    }

    /// Forgets a helper that is gone.
    fn forget(&self, gone: Arc<Helper>) {
        let mut helper = self.helper.lock().unwrap_or_else(PoisonError::into_inner);
        let known = helper.take_if(|now| Arc::ptr_eq(now, &gone));
        drop(helper);
        // The last of its owners waits for its end, for a limited time: that is not this step's.
        let end = std::thread::Builder::new().name("step-helper-end".to_owned());
        if let Err(error) = end.spawn(move || drop((known, gone))) {
            tracing::debug!(%error, "the step helper's end was waited for by a step");
        }
    }
}

/// How a container ended.
enum Ended {
    /// The command did, with this code.
    Command(i32),
    /// It could not be made.
    Failed(String),
    /// Its first process did, without a word and before there was a command.
    Early(i32),
    /// The helper did.
    Lost,
}

/// What the control groups of a step are called.
fn groups_of(id: &str) -> String {
    format!("/buildyard/{id}")
}

/// How long a container may take to end after its helper.
const PATIENCE: Duration = Duration::from_secs(60);

/// Ends a container whose helper is gone. The kernel does that too, but closes the helper's files first.
fn end_lost(watched: &Watched, groups: &Groups<'_>) -> Result<(), RunnerError> {
    watched.kill();
    groups.kill();
    let Some(process) = watched.process.get() else {
        return Ok(());
    };
    match helper::readable_within(process.as_fd(), PATIENCE) {
        Ok(true) => Ok(()),
        Ok(false) => Err(RunnerError::Abandoned(format!(
            "the step helper ended, and the container did not within {} s after it was killed",
            PATIENCE.as_secs()
        ))),
        Err(error) => Err(RunnerError::prepare(
            "waiting for a container without a helper",
        )(error)),
    }
}

/// Listens until a container has ended.
fn attend(report: OwnedFd, watched: &Watched, groups: &Groups<'_>) -> Result<Ended, RunnerError> {
    let (mut starting, mut failed) = (false, None);
    loop {
        let received = Report::receive(report.as_fd())
            .map_err(RunnerError::prepare("listening to the step helper"))?;
        let Some((report, file)) = received else {
            end_lost(watched, groups)?;
            return Ok(failed.map_or(Ended::Lost, Ended::Failed));
        };
        let code = match report {
            Report::Born => {
                if let Some(process) = file {
                    // Set once per step: this is the only place.
                    let _ = watched.process.set(process);
                }
                continue;
            }
            Report::Starting => {
                starting = true;
                continue;
            }
            Report::Failed(text) => {
                failed = Some(text);
                continue;
            }
            Report::Exited(code) => code,
            Report::Killed(signal) => 128 + signal,
        };
        return Ok(match failed {
            Some(text) => Ended::Failed(text),
            None if starting => Ended::Command(code),
            None => Ended::Early(code),
        });
    }
}
