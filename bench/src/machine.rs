//! What the figures depend on: the machine and the commit.

use std::fmt;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

/// The machine that it runs on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// What the processor calls itself.
    pub processor: String,
    /// How many threads run at once.
    pub cores: usize,
    /// Memory, in millions of bytes.
    pub memory_mb: u64,
    /// The kernel's release.
    pub kernel: String,
}

impl Machine {
    /// This one.
    pub fn this() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let processor = field(&read("/proc/cpuinfo"), "model name");
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        let kib: u64 = memory.trim_end_matches(" kB").parse().unwrap_or_default();
        Self {
            processor,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mb: kib * 1024 / 1_000_000,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }
}

/// The first value of `name : value` lines.
fn field(text: &str, name: &str) -> String {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    lines
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim().to_owned())
        .unwrap_or_default()
}

impl fmt::Display for Machine {
    #[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let processor = match self.processor.as_str() {
            "" => "unknown",
            name => name,
        };
        let gigabytes = self.memory_mb as f64 / 1000.0;
        write!(
            out,
            "{} cores ({processor}), {gigabytes:.1} GB, kernel {}",
            self.cores, self.kernel
        )
    }
}

/// The commit of the source tree, as git names it; `unknown` without git.
pub(crate) fn commit() -> String {
    let git = Command::new("git")
        .args([
            "describe",
            "--always",
            "--dirty",
            "--abbrev=10",
            "--exclude=*",
        ])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .output();
    match git {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
        _ => "unknown".to_owned(),
    }
}
