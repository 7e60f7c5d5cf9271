//! The life of a container as the worker sees it, whoever starts it: a thread that runs it, a task that passes on what it
//! prints and kills it when it is told to.

use std::io::PipeWriter;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, OnceLock};
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
use super::stage::{Stage, on_stage};
use super::{Chunk, Exit, Ran, RunnerError, StepIo, Stream};

/// Where a container writes to.
pub(super) struct Output {
    pub(super) stdout: PipeWriter,
    pub(super) stderr: PipeWriter,
}

/// What differs between ways to run a container that is on its stage.
#[async_trait]
pub(super) trait Launch: Send + Sync + 'static {
    /// Where steps find their mount points.
    fn steps(&self) -> &Path;

    /// Starts the container and waits for its end; blocks, on the thread in whose mount namespace the stage is.
    fn launch(
        &self,
        stage: &Stage<'_>,
        output: Output,
        watched: &Watched,
    ) -> Result<Exit, RunnerError>;

    /// Kills the container, which may still be on its way into existence; called again and again until it has ended.
    /// After a while `insist` says that asking kindly did not help.
    async fn kill(&self, id: &str, watched: &Watched, insist: bool);

    /// Removes what a thread that panicked may have left of the container.
    fn clear(&self, id: &str);
}

/// What the thread of a step shares with the task that watches over it.
#[derive(Debug, Default)]
pub(super) struct Watched {
    /// The process that must end for the container to end.
    pub(super) process: OnceLock<OwnedFd>,
}

impl Watched {
    /// Kills the process if it is known and has not ended.
    pub(super) fn kill(&self) {
        if let Some(process) = self.process.get() {
            // It fails only if the process has ended.
            let _ = rustix::process::pidfd_send_signal(process, Signal::KILL);
        }
    }
}

/// Containers of one kind, each on a thread of its own and watched by a task that this value owns.
pub(super) struct Supervisor<L> {
    launcher: Arc<L>,
    tasks: TaskTracker,
    closing: CancellationToken,
}

type Ended = Result<(Exit, Vec<Vec<u8>>), RunnerError>;

impl<L: Launch> Supervisor<L> {
    pub(super) fn new(launcher: L) -> Self {
        Self {
            launcher: Arc::new(launcher),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
        }
    }

    /// Kills what runs and waits until nothing is left.
    pub(super) async fn close(&self) {
        self.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// See [`Runner::run`](super::Runner::run).
    pub(super) async fn run(
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
        let launcher = Arc::clone(&self.launcher);
        let forward = stop.clone();
        let task = self
            .tasks
            .spawn(async move { watch(launcher, spec, io, forward).await });
        tokio::pin!(task);
        let ended = tokio::select! {
            ended = &mut task => ended,
            () = cancel.cancelled() => { stop.cancel(); task.await }
            () = self.closing.cancelled() => { stop.cancel(); task.await }
        };
        ended.unwrap_or_else(|error| Err(RunnerError::Abandoned(error.to_string())))
    }
}

/// Runs one container: its thread, its output, its end.
async fn watch<L: Launch>(
    launcher: Arc<L>,
    spec: ContainerSpec,
    io: StepIo,
    stop: CancellationToken,
) -> Result<Ran, RunnerError> {
    let pipes = || RunnerError::prepare("making pipes for the step's output");
    let (stdout, stdout_end) = std::io::pipe().map_err(pipes())?;
    let (stderr, stderr_end) = std::io::pipe().map_err(pipes())?;
    let output = Output {
        stdout: stdout_end,
        stderr: stderr_end,
    };
    let watched = Arc::new(Watched::default());
    let id = spec.id.clone();
    let (ended, end) = oneshot::channel();
    let thread = {
        let (launcher, watched, stop) = (launcher.clone(), watched.clone(), stop.clone());
        let work = move || {
            let result = on_stage(launcher.steps(), &spec, |stage| {
                if stop.is_cancelled() {
                    return Ok(Exit::Cancelled);
                }
                let exit = launcher.launch(stage, output, &watched);
                if stop.is_cancelled() {
                    return Ok(Exit::Cancelled);
                }
                exit
            });
            // Who waits for it is told in any case; a dropped receiver means that the program ends.
            let _ = ended.send(result);
        };
        std::thread::Builder::new()
            .name("step".to_owned())
            .spawn(work)
    };
    let thread = thread.map_err(RunnerError::prepare("starting a thread for the step"))?;

    let output = forward(stdout.into(), stderr.into(), io, stop.clone());
    let (ended, tail) = tokio::join!(wait(&*launcher, &id, &watched, end, &stop), output);
    // The thread has said its last word: joining takes as long as its mount namespace takes to go.
    if thread.join().is_err() {
        launcher.clear(&id);
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
    launcher: &impl Launch,
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
    // The container may still be on its way into existence, where it cannot be killed: so again and again.
    const PAUSE: Duration = Duration::from_millis(50);
    const PATIENCE: Duration = Duration::from_secs(5);
    let begun = Instant::now();
    loop {
        launcher.kill(id, watched, begun.elapsed() > PATIENCE).await;
        match tokio::time::timeout(PAUSE, &mut end).await {
            Ok(ended) => return ended.map_err(|_| died())?,
            Err(_still_there) => {}
        }
    }
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
