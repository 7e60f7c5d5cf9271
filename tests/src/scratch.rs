//! A temporary folder that may have had things mounted in it, and may have been a worker's.

use std::path::Path;
use std::process::{Command, Stdio};

use rustix::mount::{UnmountFlags, unmount};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// Gone when dropped, with whatever is still mounted below it, and the network that a killed worker left.
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
        for mounted in mounts_below(dir.path()) {
            // What cannot be unmounted is left, and the removal below says so.
            let _ = unmount(mounted.as_str(), UnmountFlags::DETACH);
        }
        for data in ["data", "data/worker"] {
            remove_network(&dir.path().join(data));
        }
        if let Err(error) = dir.close() {
            eprintln!("a temporary folder stays behind: {error}");
        }
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

/// Removes the bridge and the table of a worker that was killed: the next worker on its data would, but there is none.
/// Their names carry a hash of the data directory.
fn remove_network(data: &Path) {
    let Ok(data) = data.canonicalize() else {
        return;
    };
    let digest = hex::encode(Sha256::digest(data.as_os_str().as_encoded_bytes()));
    let (bridge, table) = (
        format!("by{}", &digest[..8]),
        format!("buildyard_{}", &digest[..8]),
    );
    if Path::new("/sys/class/net").join(&bridge).exists() {
        // What is not there any more needs no removing.
        let _ = quietly("ip", &["link", "delete", &bridge]);
        let _ = quietly("nft", &["delete", "table", "ip", &table]);
    }
}

fn quietly(program: &str, args: &[&str]) -> std::io::Result<std::process::ExitStatus> {
    Command::new(program)
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
}
