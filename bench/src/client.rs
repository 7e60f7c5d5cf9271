//! Clients whose time is taken: from the start of the first to the end of the last.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use buildyard_tests::Scratch;
use rustix::process::{Pid, Signal, kill_process};

/// One build, the same for both engines but for the builder.
#[derive(Debug, Clone)]
pub(crate) struct Build {
    context: PathBuf,
    words: Vec<String>,
    progress: &'static str,
}

impl Build {
    /// A build of the folder `context`. Attestations are left out: both engines are to make the same.
    pub(crate) fn of(context: &Path) -> Self {
        Self {
            context: context.to_owned(),
            words: vec!["--provenance=false".to_owned()],
            progress: "plain",
        }
    }

    /// One more argument of `buildx build`.
    pub(crate) fn arg(mut self, word: impl Into<String>) -> Self {
        self.words.push(word.into());
        self
    }

    /// The value of `ARG ROUND`: steps behind it are cached only if this round of this very project was built before.
    pub(crate) fn round(self, round: u32) -> Self {
        let project = self.context.file_name().unwrap_or_default();
        let value = format!("{}-{round}", project.to_string_lossy());
        self.arg(format!("--build-arg=ROUND={value}"))
    }

    /// The value of `ARG BASE`.
    pub(crate) fn base(self, image: &str) -> Self {
        self.arg(format!("--build-arg=BASE={image}"))
    }

    /// Steps have no network: the reference's bridge would cost it 130 ms a step.
    pub(crate) fn no_network(self) -> Self {
        self.arg("--network=none")
    }

    /// Nothing is exported: the reference's engine would otherwise unpack the image into its store.
    pub(crate) fn cache_only(self) -> Self {
        self.arg("--output=type=cacheonly")
    }

    /// The image is pushed to `name`.
    pub(crate) fn push(self, name: &str) -> Self {
        self.arg(format!("--output=type=image,name={name},push=true"))
    }

    /// For both platforms.
    pub(crate) fn two_platforms(self) -> Self {
        self.arg(format!("--platform={}", buildyard_tests::PLATFORMS))
    }

    /// Progress as JSON, with the times of each step.
    pub(crate) fn with_times(mut self) -> Self {
        self.progress = "rawjson";
        self
    }

    /// The words behind `buildx`.
    pub(crate) fn words(&self, builder: &str) -> Vec<String> {
        let mut words: Vec<String> = ["build", "--builder", builder, "--progress", self.progress]
            .map(str::to_owned)
            .to_vec();
        words.extend(self.words.iter().cloned());
        words.push(self.context.display().to_string());
        words
    }
}

/// What a set of clients took.
#[derive(Debug)]
pub(crate) struct Timed {
    /// Wall time.
    pub(crate) seconds: f64,
    /// What each wrote as its progress.
    pub(crate) progress: Vec<String>,
}

/// Runs all at once, each for at most `timeout`.
///
/// # Errors
/// One cannot be started, fails, or is not done in time; then its last lines are in the message.
pub(crate) fn time(commands: Vec<Command>, timeout: Duration) -> anyhow::Result<Timed> {
    let out = Scratch::new();
    let logs: Vec<PathBuf> = (0..commands.len())
        .map(|number| out.path().join(number.to_string()))
        .collect();
    for (log, command) in logs.iter().zip(&commands) {
        File::create(log).with_context(|| format!("a file for what {command:?} writes"))?;
    }
    let start = Instant::now();
    let ended = run_all(commands, &logs, start + timeout);
    let seconds = start.elapsed().as_secs_f64();
    let progress: Vec<String> = logs.iter().map(|log| read(log)).collect();
    for (ended, progress) in ended?.into_iter().zip(&progress) {
        match ended {
            None => bail!(
                "not done after {} s; its last lines: {}",
                timeout.as_secs(),
                last_lines(progress)
            ),
            Some(status) if !status.success() => bail!("{status}: {}", last_lines(progress)),
            Some(_) => {}
        }
    }
    Ok(Timed { seconds, progress })
}

/// How each ended; none for those that were ended as they took too long.
fn run_all(
    commands: Vec<Command>,
    logs: &[PathBuf],
    deadline: Instant,
) -> anyhow::Result<Vec<Option<ExitStatus>>> {
    let mut waiting = Vec::new();
    for (mut command, log) in commands.into_iter().zip(logs) {
        let file = File::options().append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .with_context(|| format!("starting {command:?}"));
        match child {
            Ok(child) => waiting.push(wait(child)),
            Err(error) => {
                // Those that run are waited for, so that nothing is left behind.
                waiting.into_iter().for_each(|one: Waiting| {
                    one.end();
                });
                return Err(error);
            }
        }
    }
    Ok(waiting.into_iter().map(|one| one.until(deadline)).collect())
}

/// A child that a thread waits for: its end is noticed at once, without looking again and again.
struct Waiting {
    pid: u32,
    ended: mpsc::Receiver<std::io::Result<ExitStatus>>,
}

fn wait(mut child: Child) -> Waiting {
    let (sender, ended) = mpsc::channel();
    let pid = child.id();
    std::thread::spawn(move || {
        // Nobody listens any more only if the whole run is being given up.
        let _ = sender.send(child.wait());
    });
    Waiting { pid, ended }
}

impl Waiting {
    fn until(self, deadline: Instant) -> Option<ExitStatus> {
        let left = deadline.saturating_duration_since(Instant::now());
        match self.ended.recv_timeout(left) {
            Ok(status) => status.ok(),
            Err(_) => {
                self.end();
                None
            }
        }
    }

    /// Kills it, and waits until it is gone.
    fn end(self) {
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            // It may have ended by itself in the meantime.
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = self.ended.recv();
    }
}

fn read(log: &Path) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What a person would look at first: the error, else the last lines.
fn last_lines(progress: &str) -> String {
    let lines: Vec<&str> = progress.lines().filter(|line| !line.is_empty()).collect();
    let error = lines.iter().rev().find(|line| line.starts_with("ERROR"));
    match error {
        Some(line) => (*line).to_owned(),
        None => lines[lines.len().saturating_sub(3)..].join(" / "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn builds_differ_only_in_the_builder() {
        let build = Build::of(Path::new("/context"))
            .base("r/base")
            .round(7)
            .no_network()
            .cache_only();
        let words = build.words("default").join(" ");
        assert_eq!(
            words,
            "build --builder default --progress plain --provenance=false --build-arg=BASE=r/base --build-arg=ROUND=context-7 \
             --network=none --output=type=cacheonly /context"
        );
        assert_eq!(
            words.replace("default", "farm"),
            build.words("farm").join(" ")
        );
    }

    #[test]
    fn what_fails_says_why() {
        let check = |script: &str, timeout, expected: &str| {
            let commands = vec![shell("true"), shell(script)];
            let error = time(commands, Duration::from_secs(timeout)).expect_err("it fails");
            let text = format!("{error:#}");
            assert!(text.contains(expected), "{text}");
        };
        check(
            "echo 'ERROR: no such thing' >&2; echo more >&2; exit 3",
            60,
            "ERROR: no such thing",
        );
        check("echo a >&2; exec sleep 1000", 1, "not done after 1 s");
    }

    #[test]
    fn progress_is_kept_by_client() {
        let commands = vec![shell("echo one >&2"), shell("echo two >&2")];
        let timed = time(commands, Duration::from_secs(60)).expect("both succeed");
        assert_eq!(timed.progress, ["one\n", "two\n"]);
        assert!(timed.seconds > 0.0);
    }
}
