//! Control groups: whether memory can be limited here, and whether the kernel killed a process of a container because it
//! ran out.
//!
//! cgroup v2 counts kills in `memory.events`, v1 (also on hybrid hosts) in `memory.oom_control`; the machine's own count in
//! `/proc/vmstat` tells where the container has no memory group of its own. Groups are made by the runtime, not here.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where control groups are mounted.
const ROOT: &str = "/sys/fs/cgroup";

/// Whether the runtime can limit a container's memory on this machine.
///
/// # Errors
/// Neither hierarchy has a memory controller; what is missing, and where.
pub(crate) fn check_memory_groups() -> io::Result<()> {
    match memory_hierarchy(Path::new(ROOT)) {
        Some(_) => Ok(()),
        None => Err(io::Error::other(format!(
            "no memory controller below {ROOT}: mount control groups with one, or run the worker without a limit"
        ))),
    }
}

/// Whether a limit of memory and swap together can be set. v1 has it only where the kernel accounts for swap; v2 leaves it
/// out by itself.
pub(super) fn counts_swap() -> bool {
    match memory_hierarchy(Path::new(ROOT)) {
        Some(Hierarchy::V1(path)) => path.join("memory.memsw.limit_in_bytes").exists(),
        Some(Hierarchy::V2(_)) => true,
        None => false,
    }
}

/// The hierarchy that has the memory controller.
#[derive(Debug, PartialEq, Eq)]
enum Hierarchy {
    /// One of its own, also on hybrid hosts.
    V1(PathBuf),
    /// The unified one.
    V2(PathBuf),
}

fn memory_hierarchy(root: &Path) -> Option<Hierarchy> {
    let v1 = root.join("memory");
    if v1.join("memory.limit_in_bytes").exists() {
        return Some(Hierarchy::V1(v1));
    }
    let controllers = fs::read_to_string(root.join("cgroup.controllers")).ok()?;
    let memory = controllers.split_whitespace().any(|name| name == "memory");
    memory.then(|| Hierarchy::V2(root.to_owned()))
}

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
        self.happened_in(memory_group(state, Path::new(ROOT)).as_deref(), exit_code)
    }

    /// Whether a process was killed in `group`, which counts the container's memory.
    pub(super) fn happened_in(&self, group: Option<&Path>, exit_code: i32) -> bool {
        match group.and_then(kills) {
            Some(kills) => kills > 0,
            // Without a group of its own it may have been another's process: believe it only of a killed command.
            None => exit_code == 128 + libc::SIGKILL && machine() > self.machine_before,
        }
    }
}

/// The container's group in the memory hierarchy, from the runtime's state: `runc` and `crun` both keep a JSON file,
/// the first one with a map of paths by controller (empty name on v2), the second one with a relative path.
fn memory_group(state: &Path, root: &Path) -> Option<PathBuf> {
    if let Ok(bytes) = fs::read(state.join("state.json")) {
        let state: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
        let paths = state.get("cgroup_paths")?;
        let path = paths.get("memory").or_else(|| paths.get(""))?.as_str()?;
        return Some(PathBuf::from(path));
    }
    let state: serde_json::Value =
        serde_json::from_slice(&fs::read(state.join("status")).ok()?).ok()?;
    let path = state.get("cgroup-path")?.as_str()?.trim_start_matches('/');
    [root.join("memory"), root.to_owned()]
        .iter()
        .map(|root| root.join(path))
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

    fn write(root: &Path, files: &[(&str, &str)]) {
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    fn check_hierarchy(
        files: &[(&str, &str)],
        expected: Option<fn(PathBuf) -> Hierarchy>,
        below: &str,
    ) {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), files);
        let path = root.path().join(below);
        assert_eq!(
            memory_hierarchy(root.path()),
            expected.map(|of| of(path)),
            "{files:?}"
        );
    }

    #[test]
    fn the_memory_controller_is_found_in_every_layout() {
        let v1 = ("memory/memory.limit_in_bytes", "1");
        let unified = |names| ("cgroup.controllers", names);
        check_hierarchy(&[v1], Some(Hierarchy::V1), "memory");
        check_hierarchy(
            &[v1, ("unified/cgroup.controllers", "")],
            Some(Hierarchy::V1),
            "memory",
        );
        check_hierarchy(
            &[unified("cpuset cpu io memory pids\n")],
            Some(Hierarchy::V2),
            "",
        );
        check_hierarchy(&[unified("cpu pids\n")], None, "");
        check_hierarchy(&[("pids/tasks", "")], None, "");
    }

    fn check_kills(state: (&str, &str), group: (&str, &str), expected: Option<u64>) {
        let root = tempfile::tempdir().unwrap();
        let here = root.path().display().to_string();
        write(
            root.path(),
            &[(state.0, &state.1.replace("ROOT", &here)), group],
        );
        let found = memory_group(root.path(), root.path()).and_then(|group| kills(&group));
        assert_eq!(found, expected, "{state:?} {group:?}");
    }

    #[test]
    fn kills_are_counted_where_each_runtime_says_its_group_is() {
        let runc_v1 = r#"{"cgroup_paths": {"memory": "ROOT/memory/b/s", "pids": "ROOT/pids/b/s"}}"#;
        let runc_v2 = r#"{"cgroup_paths": {"": "ROOT/b/s"}}"#;
        let crun = r#"{"cgroup-path": "/b/s"}"#;
        let v1 = (
            "memory/b/s/memory.oom_control",
            "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
        );
        let v2 = (
            "b/s/memory.events",
            "low 0\noom 1\noom_kill 3\noom_group_kill 0\n",
        );
        check_kills(("state.json", runc_v1), v1, Some(2));
        check_kills(("state.json", runc_v2), v2, Some(3));
        check_kills(("status", crun), v1, Some(2));
        check_kills(("status", crun), v2, Some(3));
        check_kills(
            ("state.json", runc_v2),
            ("b/s/memory.events", "low 0\n"),
            None,
        );
        check_kills(("state.json", "{}"), v2, None);
    }
}
