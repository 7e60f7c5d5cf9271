//! A step that leaves a mark each time it runs, and that can be held until the test lets it end: tests see what they wait
//! for, and wait for nothing else.
//!
//! The marks lie in a cache mount, which is a folder in the data of the worker that runs the step: they can be counted from
//! outside, also when the step never ended or its worker was killed.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::{Server, wait_for};

const DEADLINE: Duration = Duration::from_secs(90);

/// One `RUN` of a Dockerfile that can be told from all others on this machine.
#[derive(Debug)]
pub struct Mark {
    name: String,
}

impl Mark {
    /// A name that no other step has.
    #[expect(clippy::new_without_default, reason = "each one is another")]
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self {
            name: format!("mark-{}-{number}", std::process::id()),
        }
    }

    /// The instruction: leaves a mark, then does `command`.
    pub fn run(&self, command: &str) -> String {
        format!(
            "RUN --mount=type=cache,target=/marks echo ran >> /marks/{}; {command}",
            self.name
        )
    }

    /// The same, but prints [`Self::said`], and waits before `command` until [`Self::let_go`].
    pub fn run_held(&self, command: &str) -> String {
        let name = &self.name;
        self.run(&format!(
            "echo {name} | tr a-z A-Z; until [ -e /marks/{name}.go ]; do sleep 0.1; done; {command}"
        ))
    }

    /// What a held step prints. Its instruction does not contain it: whoever shows it has joined those who wait for the step.
    pub fn said(&self) -> String {
        self.name.to_uppercase()
    }

    /// How often it has begun on these servers.
    pub fn runs(&self, on: &[&Server]) -> usize {
        let files = on.iter().flat_map(|server| self.files(server));
        let texts = files.map(|file| std::fs::read_to_string(file).unwrap_or_default());
        texts.map(|text| text.lines().count()).sum()
    }

    /// Waits until it has begun so often.
    pub fn wait_runs(&self, on: &[&Server], times: usize) {
        let what = format!("run {times} of {}", self.name);
        wait_for(&what, DEADLINE, || (self.runs(on) >= times).then_some(()));
    }

    /// Lets it end, now and whenever it runs again on that server. It must have begun there.
    pub fn let_go(&self, on: &Server) {
        let files = self.files(on);
        assert!(!files.is_empty(), "{} has never run there", self.name);
        for file in files {
            std::fs::write(file.with_extension("go"), "").expect("a file beside the mark");
        }
    }

    /// Whether a process of it runs on this machine.
    pub fn is_running(&self) -> bool {
        let processes = std::fs::read_dir("/proc").expect("the list of processes");
        let lines =
            processes.filter_map(|entry| std::fs::read(entry.ok()?.path().join("cmdline")).ok());
        let marked = |line: Vec<u8>| {
            line.windows(self.name.len())
                .any(|part| part == self.name.as_bytes())
        };
        lines.into_iter().any(marked)
    }

    /// Waits until no process of it runs any more.
    pub fn wait_ended(&self) {
        let what = format!("the end of {}", self.name);
        wait_for(&what, DEADLINE, || (!self.is_running()).then_some(()));
    }

    /// The files that its runs have written, one for each cache mount.
    fn files(&self, server: &Server) -> Vec<PathBuf> {
        let places = ["caches", "worker/caches"].map(|place| server.data().join(place));
        let mounts = places
            .iter()
            .filter_map(|place| std::fs::read_dir(place).ok())
            .flatten();
        let files = mounts.filter_map(|mount| Some(mount.ok()?.path().join(&self.name)));
        files.filter(|file| file.exists()).collect()
    }
}
