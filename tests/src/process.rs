//! A process of a test: its output goes to a file, it never outlives the test.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::wait_for;

/// How long a process may take to end after SIGTERM before it is killed.
const PATIENCE: Duration = Duration::from_secs(15);

/// A running process. Dropped, it is asked to end, then killed; if the test has failed, its output is shown.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `words`; what it writes goes to the file `log`, behind what is there.
    ///
    /// # Panics
    /// It cannot be started.
    pub fn start(
        name: &str,
        words: &[String],
        environment: &[(String, String)],
        log: PathBuf,
    ) -> Self {
        let open = || File::options().create(true).append(true).open(&log);
        let output = open().expect("opening a log file");
        let errors = output.try_clone().expect("a second handle");
        // The kernel ends the process if the test is killed; setpriv becomes the program, so the pid is its own.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "--"])
            .args(words)
            .envs(environment.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {words:?}: {error}"));
        Self {
            name: name.to_owned(),
            child,
            log,
            ended: None,
        }
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All that it has written.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// How it ended; none while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("waiting for a child");
        }
        self.ended
    }

    /// Waits until `ready` holds.
    ///
    /// # Panics
    /// It ends before, or the deadline is over; its output is in the message.
    pub fn wait_ready(&mut self, deadline: Duration, ready: impl Fn() -> bool) {
        let start = std::time::Instant::now();
        loop {
            if ready() {
                return;
            }
            if let Some(status) = self.ended() {
                panic!("{} ended early: {status}\n{}", self.name, self.log());
            }
            assert!(
                start.elapsed() < deadline,
                "{} is not ready after {deadline:?}\n{}",
                self.name,
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        if self.ended.is_some() {
            return;
        }
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        // A process that has just ended is as good as signalled.
        let _ = kill_process(pid.expect("a child has a pid"), signal);
    }

    /// Asks it to end and waits for that.
    ///
    /// # Panics
    /// It takes longer than `deadline`.
    pub fn stop(&mut self, deadline: Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        let what = format!("the end of {}", self.name);
        wait_for(&what, deadline, || self.ended())
    }

    /// Kills it, as a power cut would.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.ended = self.child.wait().ok();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.signal(Signal::TERM);
            let start = std::time::Instant::now();
            while self.ended().is_none() && start.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_millis(10));
            }
            if self.ended().is_none() {
                eprintln!("{} did not end within {PATIENCE:?}: killed", self.name);
                self.kill();
            }
        }
        if std::thread::panicking() {
            eprintln!("--- {} wrote:\n{}---", self.name, self.log());
        }
    }
}
