//! A temporary folder that may have had things mounted in it.

use std::path::Path;

use rustix::mount::{UnmountFlags, unmount};
use tempfile::TempDir;

/// Gone when dropped, with whatever is still mounted below it.
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
