//! Whether the kernel killed a process of a container because memory ran out.
//!
//! cgroup v2 counts it in `memory.events`, v1 (also on hybrid hosts) in `memory.oom_control`; the machine's own count in
//! `/proc/vmstat` tells where the container has no memory group of its own.

use std::fs;
use std::path::{Path, PathBuf};

/// The machine's count when the container started.
#[derive(Debug, Clone, Copy)]
pub(super) struct OomWatch {
    machine_before: u64,
}

impl OomWatch {
    pub(super) fn start() -> Self {
        Self {
            machine_before: machine(),
        }
    }

    /// Whether a process of the container, which has not been deleted yet, was killed. `state` is the runtime's
    /// directory for the container.
    pub(super) fn happened(&self, state: &Path, exit_code: i32) -> bool {
        match memory_group(state).and_then(|group| kills(&group)) {
            Some(kills) => kills > 0,
            // Without a group of its own it may have been another's process: believe it only of a killed command.
            None => exit_code == 128 + libc::SIGKILL && machine() > self.machine_before,
        }
    }
}

/// The container's group in the memory hierarchy, from the runtime's state: `runc` and `crun` both keep a JSON file,
/// the first one with a map of paths by controller (empty name on v2), the second one with a relative path.
fn memory_group(state: &Path) -> Option<PathBuf> {
    if let Ok(bytes) = fs::read(state.join("state.json")) {
        let state: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
        let paths = state.get("cgroup_paths")?;
        let path = paths.get("memory").or_else(|| paths.get(""))?.as_str()?;
        return Some(PathBuf::from(path));
    }
    let state: serde_json::Value =
        serde_json::from_slice(&fs::read(state.join("status")).ok()?).ok()?;
    let path = state.get("cgroup-path")?.as_str()?.trim_start_matches('/');
    ["/sys/fs/cgroup/memory", "/sys/fs/cgroup"]
        .iter()
        .map(|root| Path::new(root).join(path))
        .find(|path| path.is_dir())
}

fn kills(group: &Path) -> Option<u64> {
    ["memory.events", "memory.oom_control"]
        .iter()
        .find_map(|file| number(&fs::read_to_string(group.join(file)).ok()?, "oom_kill"))
}

fn machine() -> u64 {
    fs::read_to_string("/proc/vmstat")
        .ok()
        .and_then(|text| number(&text, "oom_kill"))
        .unwrap_or(0)
}

/// The number behind `name` in lines of a name and a number.
fn number(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        line.strip_prefix(name)?
            .strip_prefix(' ')?
            .trim()
            .parse()
            .ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        assert_eq!(
            number("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n", "oom_kill"),
            Some(2)
        );
        assert_eq!(
            number("low 0\noom 1\noom_kill 3\noom_group_kill 0\n", "oom_kill"),
            Some(3)
        );
        assert_eq!(number("low 0\n", "oom_kill"), None);
    }
}
