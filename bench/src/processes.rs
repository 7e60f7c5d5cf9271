//! Memory of processes, as the kernel counts it (proc(5)).

use std::collections::BTreeMap;
use std::fs;

use anyhow::Context;

/// An engine's processes.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    pids: Vec<u32>,
}

/// A process and all below it.
pub(crate) fn tree(root: u32) -> Tree {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        if let Some(parent) = parent(&stat) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut pids = vec![root];
    let mut next = 0;
    while let Some(pid) = pids.get(next) {
        let below = children.remove(pid).unwrap_or_default();
        pids.extend(below);
        next += 1;
    }
    Tree { pids }
}

/// The parent in a line of `/proc/PID/stat`, whose second field may contain anything.
fn parent(stat: &str) -> Option<u32> {
    let (_, behind) = stat.rsplit_once(')')?;
    behind.split_whitespace().nth(1)?.parse().ok()
}

impl Tree {
    /// What they have in memory now, in millions of bytes.
    ///
    /// # Errors
    /// The first of them is gone.
    pub(crate) fn resident(&self) -> anyhow::Result<f64> {
        self.sum("VmRSS")
    }

    /// What each of them had at most since [`Self::forget_peak`], in millions of bytes.
    ///
    /// # Errors
    /// The first of them is gone.
    pub(crate) fn peak(&self) -> anyhow::Result<f64> {
        self.sum("VmHWM")
    }

    /// Begins to look for the peak anew.
    ///
    /// # Errors
    /// The kernel does not let us.
    pub(crate) fn forget_peak(&self) -> anyhow::Result<()> {
        for pid in &self.pids {
            let path = format!("/proc/{pid}/clear_refs");
            fs::write(&path, "5").with_context(|| format!("writing 5 to {path}"))?;
        }
        Ok(())
    }

    fn sum(&self, name: &str) -> anyhow::Result<f64> {
        let mut kib = 0;
        for (number, pid) in self.pids.iter().enumerate() {
            let path = format!("/proc/{pid}/status");
            match fs::read_to_string(&path) {
                Ok(status) => kib += field(&status, name).unwrap_or_default(),
                // A helper may have ended; the daemon itself may not.
                Err(_) if number > 0 => {}
                Err(error) => return Err(error).with_context(|| format!("reading {path}")),
            }
        }
        Ok(kib as f64 * 1024.0 / 1e6)
    }
}

fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim_start_matches(':')
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_texts_are_read() {
        assert_eq!(parent("12 (a) b) (c) S 7 1 1 0"), Some(7));
        assert_eq!(parent(""), None);
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(field(status, "VmHWM"), Some(2048));
        assert_eq!(field(status, "VmRSS"), Some(1024));
        assert_eq!(field(status, "VmSwap"), None);
    }

    #[test]
    fn children_count() {
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .expect("started");
        let tree = tree(std::process::id());
        let resident = tree.resident();
        child.kill().expect("killed");
        child.wait().expect("waited for");
        assert!(tree.pids.contains(&child.id()), "{tree:?}");
        assert!(resident.expect("this process is there") > 0.1);
    }
}
