//! The place where a step's changes go.

use std::fs;
use std::path::{Path, PathBuf};

use super::SnapshotError;

/// A directory for what a step changes, with overlayfs's work directory beside it. Dropping it removes both.
#[derive(Debug)]
pub struct UpperDir {
    home: PathBuf,
}

impl UpperDir {
    /// Makes the directories under `home`, which must not exist yet.
    pub(crate) fn create(home: PathBuf) -> Result<Self, SnapshotError> {
        let upper = Self { home };
        for dir in [upper.home.clone(), upper.dir(), upper.work()] {
            fs::create_dir(&dir).map_err(SnapshotError::io("creating the directory", &dir))?;
        }
        Ok(upper)
    }

    /// What the step wrote, in overlayfs's form: whiteouts are character devices 0:0, opaque directories carry
    /// `trusted.overlay.opaque=y`.
    pub fn dir(&self) -> PathBuf {
        self.home.join("fs")
    }

    /// Overlayfs's work directory.
    pub fn work(&self) -> PathBuf {
        self.home.join("work")
    }

    /// Where both lie.
    pub fn home(&self) -> &Path {
        &self.home
    }
}

impl Drop for UpperDir {
    fn drop(&mut self) {
        // What cannot be removed now is removed when the worker starts the next time.
        if let Err(error) = fs::remove_dir_all(&self.home) {
            tracing::warn!(path = %self.home.display(), %error, "an upper directory was left behind");
        }
    }
}
