//! A temporary folder that may have had things mounted in it, and may have been a worker's that was killed.

use std::path::Path;
use std::process::{Command, Stdio};

use rustix::mount::{UnmountFlags, unmount};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// Gone when dropped, with whatever is still mounted below it, and the containers and the network that a killed worker left.
#[derive(Debug)]
pub struct Scratch {
    dir: Option<TempDir>,
}

impl Scratch {
    /// An empty folder.
    #[expect(clippy::new_without_default, reason = "it makes a folder on the disk")]
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("buildyard-test-").tempdir();
        Self {
            dir: Some(dir.expect("making a temporary folder")),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.as_ref().expect("it is there until dropped").path()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let Some(dir) = self.dir.take() else { return };
        let workers = ["data", "data/worker"].map(|data| dir.path().join(data));
        for data in &workers {
            remove_containers(data);
        }
        unmount_below(dir.path());
        for data in &workers {
            remove_network(data);
        }
        if let Err(error) = dir.close() {
            eprintln!("a temporary folder stays behind: {error}");
        }
    }
}

/// Unmounts what is mounted at a folder and below it. What cannot be unmounted is left: removing the folder then fails.
pub fn unmount_below(dir: &Path) {
    for mounted in mounts_below(dir) {
        let _ = unmount(mounted.as_str(), UnmountFlags::DETACH);
    }
}

/// The mount points below a folder, the inner ones first.
fn mounts_below(dir: &Path) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(1));
    let mut below: Vec<String> = points
        .filter(|point| Path::new(point).starts_with(dir))
        .map(str::to_owned)
        .collect();
    below.sort_by_key(|point| std::cmp::Reverse(point.len()));
    below
}

/// The ids of the containers that a worker with this data directory has, or had when it was killed.
pub fn containers_of(data: &Path) -> Vec<String> {
    let state = std::fs::read_dir(data.join("run/state"));
    let ids = state.into_iter().flatten().flatten();
    ids.filter_map(|id| id.file_name().into_string().ok())
        .collect()
}

/// The names of the bridge and of the table of rules of a worker with this data directory: a hash of its path is in them.
pub fn network_of(data: &Path) -> [String; 2] {
    let data = data.canonicalize().expect("a worker's data directory");
    let digest = hex::encode(Sha256::digest(data.as_os_str().as_encoded_bytes()));
    let tag = &digest[..8];
    [format!("by-{tag}"), format!("buildyard_net_{tag}")]
}

/// Ends what a killed worker's steps still do: the next worker on its data would, but there is none.
fn remove_containers(data: &Path) {
    let state = data.join("run/state").display().to_string();
    for id in containers_of(data) {
        // One that cannot be removed keeps its mounts, and the removal of the folder says so.
        let _ = quietly("runc", &["--root", &state, "delete", "--force", &id]);
    }
}

/// Removes the bridge and the table of a worker that was killed: the next worker of this machine would.
fn remove_network(data: &Path) {
    if !data.exists() {
        return;
    }
    let [bridge, table] = network_of(data);
    if Path::new("/sys/class/net").join(&bridge).exists() {
        // What is not there any more needs no removing.
        let _ = quietly("nft", &["delete", "table", "ip", &table]);
        let _ = quietly("ip", &["link", "delete", &bridge]);
    }
}

fn quietly(program: &str, args: &[&str]) -> std::io::Result<std::process::ExitStatus> {
    Command::new(program)
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
}
