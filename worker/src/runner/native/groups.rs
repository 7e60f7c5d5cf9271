//! A container's control groups: one in each hierarchy of v1, and one in the unified hierarchy that hybrid hosts have
//! beside them.
//!
//! A machine with the unified hierarchy alone is refused: which devices a container may open is said there by a program in
//! the kernel, and that is left to the OCI runtime.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use rustix::process::{Pid, Signal};

use super::config::Resources;

/// What a sandboxed container may do with device nodes besides making them: `null`, `zero`, `full`, `random`, `urandom`,
/// `tty`, `ptmx`, pseudo terminals, and `net/tun`.
const DEVICES: [&str; 11] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:2 rwm",
    "c 10:200 rwm",
    "c 136:* rwm",
];

/// The machine's hierarchies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hierarchies {
    v1: Vec<Hierarchy>,
    unified: Option<PathBuf>,
}

/// A hierarchy of v1.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hierarchy {
    /// `memory`, or several; `name=systemd` where it has no controller.
    controllers: Vec<String>,
    mounted_at: PathBuf,
}

impl Hierarchies {
    /// Those of this machine, in the order in which they are mounted.
    pub(super) fn find() -> io::Result<Self> {
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo")?;
        let own = fs::read_to_string("/proc/thread-self/cgroup")?;
        Self::parse(&mounts, &own)
    }

    /// From the texts of `/proc/PID/mountinfo` and `/proc/PID/cgroup`.
    fn parse(mounts: &str, own: &str) -> io::Result<Self> {
        let mut wanted: HashSet<&str> = own
            .lines()
            .filter_map(|line| line.split(':').nth(1))
            .flat_map(|names| names.split(','))
            .filter(|name| !name.is_empty())
            .collect();
        let (mut v1, mut unified) = (Vec::new(), None);
        for line in mounts.lines() {
            let Some((before, after)) = line.split_once(" - ") else {
                continue;
            };
            let Some(place) = before.split(' ').nth(4) else {
                continue;
            };
            let mounted_at = PathBuf::from(place);
            let mut words = after.split(' ');
            match words.next() {
                Some("cgroup2") if unified.is_none() => unified = Some(mounted_at),
                Some("cgroup") => {
                    let options = words.nth(1).unwrap_or_default().split(',');
                    let controllers: Vec<String> = options
                        .filter(|name| wanted.remove(name))
                        .map(str::to_owned)
                        .collect();
                    if !controllers.is_empty() {
                        v1.push(Hierarchy {
                            controllers,
                            mounted_at,
                        });
                    }
                }
                _ => {}
            }
        }
        let found = Self { v1, unified };
        if found.of("devices").is_none() {
            return Err(io::Error::other(
                "there is no v1 hierarchy of control groups with the devices controller",
            ));
        }
        Ok(found)
    }

    fn of(&self, controller: &str) -> Option<&Hierarchy> {
        let mut all = self.v1.iter();
        all.find(|hierarchy| hierarchy.controllers.iter().any(|name| name == controller))
    }

    fn places(&self) -> impl Iterator<Item = &PathBuf> {
        self.v1
            .iter()
            .map(|hierarchy| &hierarchy.mounted_at)
            .chain(&self.unified)
    }

    /// Kills what is left in the groups `path` of an earlier process, and removes them. Whether they are gone.
    pub(super) fn sweep(&self, path: &str) -> bool {
        self.kill(path);
        let dirs: Vec<PathBuf> = self.places().map(|place| below(place, path)).collect();
        for dir in dirs.iter().filter(|dir| dir.exists()) {
            remove(dir);
        }
        !dirs.iter().any(|dir| dir.exists())
    }

    /// Kills all processes in the groups `path`, also frozen ones.
    pub(super) fn kill(&self, path: &str) {
        for place in self.places() {
            kill(&below(place, path));
        }
        self.thaw(path);
    }

    /// See [`thaw`].
    pub(super) fn thaw(&self, path: &str) {
        for place in self.places() {
            thaw(&below(place, path));
        }
    }
}

/// The groups of one container; removed when this is dropped, by when its processes must be gone.
#[derive(Debug)]
pub(super) struct Groups<'a> {
    hierarchies: &'a Hierarchies,
    path: String,
}

impl<'a> Groups<'a> {
    /// Makes groups called `path` in every hierarchy and sets what they limit.
    pub(super) fn create(
        hierarchies: &'a Hierarchies,
        path: &str,
        resources: &Resources,
    ) -> io::Result<Self> {
        // From here on what was made is removed when it is dropped.
        let groups = Self {
            hierarchies,
            path: path.to_owned(),
        };
        for hierarchy in &hierarchies.v1 {
            let dir = below(&hierarchy.mounted_at, path);
            make(&dir)?;
            if hierarchy.controllers.iter().any(|name| name == "cpuset") {
                inherit_cpus(&hierarchy.mounted_at, &dir)?;
            }
        }
        if let Some(unified) = &hierarchies.unified {
            make(&below(unified, path))?;
        }
        groups.limit(resources)?;
        Ok(groups)
    }

    fn limit(&self, resources: &Resources) -> io::Result<()> {
        self.set("devices", "devices.deny", "a")?;
        if resources.all_devices() {
            self.set("devices", "devices.allow", "a")?;
        } else {
            for rule in DEVICES {
                self.set("devices", "devices.allow", rule)?;
            }
        }
        if let Some(memory) = &resources.memory {
            self.set_number("memory", "memory.limit_in_bytes", memory.limit)?;
            self.set_number("memory", "memory.memsw.limit_in_bytes", memory.swap)?;
        }
        if let Some(pids) = &resources.pids {
            self.set_number("pids", "pids.max", Some(pids.limit))?;
        }
        if let Some(cpu) = &resources.cpu {
            self.set_number("cpu", "cpu.cfs_period_us", cpu.period)?;
            self.set_number("cpu", "cpu.cfs_quota_us", cpu.quota)?;
            if let Some(cpus) = &cpu.cpus {
                self.set("cpuset", "cpuset.cpus", cpus)?;
            }
        }
        Ok(())
    }

    fn set_number(
        &self,
        controller: &str,
        file: &str,
        value: Option<impl ToString>,
    ) -> io::Result<()> {
        value.map_or(Ok(()), |value| {
            self.set(controller, file, &value.to_string())
        })
    }

    fn set(&self, controller: &str, file: &str, value: &str) -> io::Result<()> {
        let dir = self.of(controller).ok_or_else(|| {
            io::Error::other(format!(
                "there is no hierarchy of control groups with the {controller} controller"
            ))
        })?;
        let path = dir.join(file);
        fs::write(&path, value).map_err(|error| {
            let what = format!("writing {value:?} to {}: {error}", path.display());
            io::Error::new(error.kind(), what)
        })
    }

    fn of(&self, controller: &str) -> Option<PathBuf> {
        let hierarchy = self.hierarchies.of(controller)?;
        Some(below(&hierarchy.mounted_at, &self.path))
    }

    /// Kills all processes in them, also frozen ones.
    pub(super) fn kill(&self) {
        self.hierarchies.kill(&self.path);
    }

    /// The group that counts memory.
    pub(super) fn memory(&self) -> Option<PathBuf> {
        self.of("memory")
    }

    /// The files of v1 to which a process with one thread writes to enter the groups. Not `cgroup.procs`: moving a whole process
    /// keeps all others from being born, for which the kernel waits until every processor has taken notice (10 ms and more).
    /// A thread that moves itself waits for nobody (since Linux 5.5).
    pub(super) fn entrances(&self) -> io::Result<Vec<File>> {
        let open = |hierarchy: &Hierarchy| {
            let file = below(&hierarchy.mounted_at, &self.path).join("tasks");
            OpenOptions::new().write(true).open(file)
        };
        self.hierarchies.v1.iter().map(open).collect()
    }

    /// The group of the unified hierarchy, into which a process can be born.
    pub(super) fn unified(&self) -> io::Result<Option<File>> {
        let unified = self.hierarchies.unified.as_ref();
        unified
            .map(|unified| File::open(below(unified, &self.path)))
            .transpose()
    }

    /// Where all of them are.
    pub(super) fn places(&self) -> Vec<String> {
        let places = self.hierarchies.places();
        let paths = places.map(|place| below(place, &self.path));
        paths
            .filter_map(|path| Some(path.to_str()?.to_owned()))
            .collect()
    }

    /// What a container sees of itself below `/sys/fs/cgroup`: names and the directories behind them.
    pub(super) fn views(&self) -> Vec<(String, String)> {
        let view = |hierarchy: &Hierarchy| {
            let name = hierarchy.mounted_at.file_name()?.to_str()?.to_owned();
            let dir = below(&hierarchy.mounted_at, &self.path);
            Some((name, dir.to_str()?.to_owned()))
        };
        self.hierarchies.v1.iter().filter_map(view).collect()
    }
}

impl Drop for Groups<'_> {
    fn drop(&mut self) {
        for place in self.hierarchies.places() {
            remove(&below(place, &self.path));
        }
    }
}

fn below(place: &Path, path: &str) -> PathBuf {
    place.join(path.trim_start_matches('/'))
}

fn make(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir).map_err(|error| {
        let what = format!("making the control group {}: {error}", dir.display());
        io::Error::new(error.kind(), what)
    })
}

/// Without processors and memory of its own nothing may enter a group of `cpuset`: it gets its parent's.
fn inherit_cpus(root: &Path, dir: &Path) -> io::Result<()> {
    let mut parents: Vec<&Path> = dir.ancestors().take_while(|path| *path != root).collect();
    parents.reverse();
    for group in parents {
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let own = group.join(file);
            if !fs::read_to_string(&own)?.trim().is_empty() {
                continue;
            }
            let above = group.parent().unwrap_or(root).join(file);
            fs::write(&own, fs::read_to_string(above)?.trim())?;
        }
    }
    Ok(())
}

/// Kills the processes of a group and of those below it.
fn kill(dir: &Path) {
    for group in groups_below(dir) {
        let list = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        let pids = list.lines().filter_map(|line| line.parse().ok());
        for pid in pids.filter_map(Pid::from_raw) {
            tracing::info!(pid = pid.as_raw_nonzero(), "killing what is left of a step");
            // It fails only if the process has ended.
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
}

/// Lets what is frozen in a group and in those below it go on. A step with all rights may freeze itself, and what is frozen
/// by a v1 group does not end though it was killed. To be called after that: then it gets to do nothing but end.
pub(super) fn thaw(dir: &Path) {
    for group in groups_below(dir) {
        for (file, running) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
            // Most hierarchies have neither, and the group may be gone.
            let opened = OpenOptions::new().write(true).open(group.join(file));
            let _ = opened.and_then(|mut file| file.write_all(running.as_bytes()));
        }
    }
}

/// Removes a group and those below it. Processes that were killed take a moment to leave it.
pub(super) fn remove(dir: &Path) {
    const MOST_TRIES: u32 = 12;
    for group in groups_below(dir) {
        for tried in 0.. {
            match fs::remove_dir(&group) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy && tried < MOST_TRIES => {
                    sleep(Duration::from_millis(1 << tried.min(9)));
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(group = %group.display(), %error, "a control group was left behind");
                    break;
                }
                _ => break,
            }
        }
    }
}

/// A group and those below it, deepest first.
fn groups_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![dir.to_owned()];
    let mut next = 0;
    while next < found.len() {
        let entries = fs::read_dir(&found[next]).into_iter().flatten().flatten();
        let dirs: Vec<PathBuf> = entries
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
            .collect();
        found.extend(dirs);
        next += 1;
    }
    found.reverse();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
24 1 0:22 / /sys rw - sysfs sysfs rw
29 24 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
30 29 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
31 29 0:30 / /sys/fs/cgroup/devices rw,relatime - cgroup cgroup rw,devices
32 29 0:31 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
33 29 0:32 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
40 1 0:30 / /mnt/again rw,relatime - cgroup cgroup rw,devices
";
    const OWN: &str = "3:name=systemd:/a\n2:devices:/\n1:cpu,cpuacct:/\n0::/\n";

    #[test]
    fn hierarchies_are_found_once_each() {
        let found = Hierarchies::parse(HYBRID, OWN).unwrap();
        let hierarchy = |controllers: &[&str], name: &str| Hierarchy {
            controllers: controllers.iter().map(ToString::to_string).collect(),
            mounted_at: Path::new("/sys/fs/cgroup").join(name),
        };
        let expected = Hierarchies {
            v1: vec![
                hierarchy(&["cpu", "cpuacct"], "cpu,cpuacct"),
                hierarchy(&["devices"], "devices"),
                hierarchy(&["name=systemd"], "systemd"),
            ],
            unified: Some("/sys/fs/cgroup/unified".into()),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn the_unified_hierarchy_alone_is_not_enough() {
        let mounts = "29 24 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert!(Hierarchies::parse(mounts, "0::/\n").is_err());
    }
}
