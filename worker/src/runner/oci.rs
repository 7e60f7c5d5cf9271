//! Containers by an OCI runtime program with `runc`'s command line.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use rustix::process::Signal;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::output::{Clip, Tail};
use super::spec::ContainerSpec;
use super::step::{self, Runtime, Watched};
use super::{Chunk, Exit, Ran, Runner, RunnerError, StepIo, Stream};

/// How to run containers.
#[derive(Debug, Clone)]
pub struct OciRuntimeConfig {
    /// The runtime program, found on the PATH unless it has a slash.
    pub program: String,
    /// A directory for the runner alone; the steps' mount points are in it (nothing that they write is).
    pub dir: PathBuf,
}

/// The runner with `runc`.
///
/// Each container lives on a thread of its own (see `runner/step.rs`) and is watched by a task that this value owns.
pub struct OciRuntime {
    runtime: Arc<Runtime>,
    tasks: TaskTracker,
    closing: CancellationToken,
}

type Ended = Result<(Exit, Vec<Vec<u8>>), RunnerError>;

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
        Ok(Self {
            runtime: Arc::new(runtime),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
        })
    }

    /// Kills what runs and waits until nothing is left.
    pub async fn close(&self) {
        self.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
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
        if self.closing.is_cancelled() {
            return Err(RunnerError::Abandoned("the worker is closing".to_owned()));
        }
        let stop = CancellationToken::new();
        let _stop_when_dropped = stop.clone().drop_guard();
        let runtime = Arc::clone(&self.runtime);
        let closing = self.closing.clone();
        let forward = stop.clone();
        let task = self
            .tasks
            .spawn(async move { watch(runtime, spec, io, forward).await });
        tokio::pin!(task);
        let ended = tokio::select! {
            ended = &mut task => ended,
            () = cancel.cancelled() => { stop.cancel(); task.await }
            () = closing.cancelled() => { stop.cancel(); task.await }
        };
        ended.unwrap_or_else(|error| Err(RunnerError::Abandoned(error.to_string())))
    }
}

/// Runs one container: its thread, its output, its end.
async fn watch(
    runtime: Arc<Runtime>,
    spec: ContainerSpec,
    io: StepIo,
    stop: CancellationToken,
) -> Result<Ran, RunnerError> {
    let pipes = || RunnerError::prepare("making pipes for the step's output");
    let (stdout, stdout_end) = std::io::pipe().map_err(pipes())?;
    let (stderr, stderr_end) = std::io::pipe().map_err(pipes())?;
    let watched = Arc::new(Watched::default());
    let id = spec.id.clone();
    let (ended, end) = oneshot::channel();
    let thread = {
        let (runtime, watched, stop) = (Arc::clone(&runtime), Arc::clone(&watched), stop.clone());
        let work = move || {
            let result = step::run(&runtime, &spec, (stdout_end, stderr_end), &watched, &stop);
            // Who waits for it is told in any case; a dropped receiver means that the program ends.
            let _ = ended.send(result);
        };
        std::thread::Builder::new()
            .name("step".to_owned())
            .spawn(work)
    };
    let thread = thread.map_err(RunnerError::prepare("starting a thread for the step"))?;

    let output = forward(stdout.into(), stderr.into(), io, stop.clone());
    let (ended, tail) = tokio::join!(wait(&runtime, &id, &watched, end, &stop), output);
    // The thread has said its last word: joining takes as long as its mount namespace takes to go.
    if thread.join().is_err() {
        runtime.delete(&id);
    }
    let (exit, stubs) = ended?;
    Ok(Ran {
        exit,
        tail: tail?,
        stubs,
    })
}

/// Waits for the thread's answer; once told to stop, kills the container until it comes.
async fn wait(
    runtime: &Runtime,
    id: &str,
    watched: &Watched,
    mut end: oneshot::Receiver<Ended>,
    stop: &CancellationToken,
) -> Ended {
    let died = || RunnerError::Abandoned("its thread panicked".to_owned());
    tokio::select! {
        ended = &mut end => return ended.map_err(|_| died())?,
        () = stop.cancelled() => {}
    }
    // The container may still be on its way into existence, where the runtime cannot kill it: so again and again, and
    // in the end the runtime itself.
    const PAUSE: Duration = Duration::from_millis(50);
    const PATIENCE: Duration = Duration::from_secs(5);
    let begun = Instant::now();
    loop {
        kill(runtime, id).await;
        if begun.elapsed() > PATIENCE
            && let Some(process) = watched.process.get()
        {
            // It fails only if the process has ended.
            let _ = rustix::process::pidfd_send_signal(process, Signal::KILL);
        }
        match tokio::time::timeout(PAUSE, &mut end).await {
            Ok(ended) => return ended.map_err(|_| died())?,
            Err(_still_there) => {}
        }
    }
}

async fn kill(runtime: &Runtime, id: &str) {
    let mut command = tokio::process::Command::from(runtime.command());
    command
        .args(["kill", id, "KILL"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // No container yet, or none any more: the caller sees to both.
    let _ = command.status().await;
}

/// Passes both streams on until they end, and returns the last of them.
async fn forward(
    stdout: OwnedFd,
    stderr: OwnedFd,
    io: StepIo,
    stop: CancellationToken,
) -> Result<Vec<u8>, RunnerError> {
    let receiver = |fd| {
        pipe::Receiver::from_owned_fd(fd).map_err(RunnerError::prepare("reading the step's output"))
    };
    let mut pipes = [
        (Stream::Stdout, Some(receiver(stdout)?)),
        (Stream::Stderr, Some(receiver(stderr)?)),
    ];
    let mut clips = [Clip::new(io.limits), Clip::new(io.limits)];
    let mut tail = Tail::default();
    let begun = Instant::now();
    let mut buffers = [vec![0; 32 << 10], vec![0; 32 << 10]];
    while pipes.iter().any(|(_, pipe)| pipe.is_some()) {
        let [(_, first), (_, second)] = &mut pipes;
        let [one, other] = &mut buffers;
        let (index, length) = tokio::select! {
            length = read(first, one), if first.is_some() => (0, length),
            length = read(second, other), if second.is_some() => (1, length),
        };
        if length == 0 {
            pipes[index].1 = None;
            continue;
        }
        let bytes = &buffers[index][..length];
        tail.push(bytes);
        let passed = clips[index].pass(bytes, begun.elapsed());
        if passed.is_empty() {
            continue;
        }
        let chunk = Chunk {
            stream: pipes[index].0,
            bytes: Bytes::from(passed),
        };
        tokio::select! {
            // Nobody listens any more: the step goes on all the same.
            _ = io.output.send(chunk) => {}
            () = stop.cancelled() => {}
        }
    }
    Ok(tail.into_bytes())
}

/// Reads what is there; 0 at the end, and where reading fails.
async fn read(pipe: &mut Option<pipe::Receiver>, buffer: &mut [u8]) -> usize {
    match pipe {
        Some(pipe) => pipe.read(buffer).await.unwrap_or(0),
        None => 0,
    }
}
