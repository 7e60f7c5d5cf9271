//! A client that runs beside the test.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::{Outcome, Scratch, wait_for};

/// How long a build of a test may take.
const DEADLINE: Duration = Duration::from_secs(120);

/// A started client. Killed when dropped.
#[derive(Debug)]
pub struct Running {
    line: String,
    child: Child,
    out: Scratch,
}

impl Running {
    pub(crate) fn start(line: String, mut command: Command) -> Self {
        let out = Scratch::new();
        let file =
            |name: &str| File::create(out.path().join(name)).expect("a file for a client's output");
        let child = command
            .stdin(Stdio::null())
            .stdout(file("stdout"))
            .stderr(file("stderr"))
            .spawn()
            .expect("starting a client");
        Self { line, child, out }
    }

    fn read(&self, name: &str) -> String {
        let bytes = std::fs::read(self.out.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until its progress has a text.
    ///
    /// # Panics
    /// It ends without it, or the deadline is over.
    pub fn wait_says(&mut self, text: &str) {
        wait_for(
            &format!("{text:?} in a client's progress"),
            DEADLINE,
            || {
                if self.read("stderr").contains(text) {
                    return Some(());
                }
                let ended = self.child.try_wait().expect("waiting for a client");
                assert!(
                    ended.is_none(),
                    "buildx {} ended without {text:?}:\n{}",
                    self.line,
                    self.read("stderr")
                );
                None
            },
        );
    }

    /// Kills it, as a power cut would.
    pub fn kill(mut self) {
        self.end();
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// The deadline is over.
    pub fn finish(mut self) -> Outcome {
        let what = format!("the end of buildx {}", self.line);
        let status = wait_for(&what, DEADLINE, || {
            self.child.try_wait().expect("waiting for a client")
        });
        Outcome {
            line: self.line.clone(),
            code: status.code(),
            stdout: self.read("stdout"),
            stderr: self.read("stderr"),
        }
    }

    fn end(&mut self) {
        // Neither fails unless it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            eprintln!(
                "--- buildx {} wrote:\n{}---",
                self.line,
                self.read("stderr")
            );
        }
    }
}
