//! The place where a step's changes go.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::SnapshotError;
use super::sweeper::Sweeper;

/// A directory for what a step changes, with overlayfs's work directory beside it. Both go soon after it is dropped.
#[derive(Debug)]
pub struct UpperDir {
    home: PathBuf,
    sweeper: Arc<Sweeper>,
}

impl UpperDir {
    /// Makes the directories under `home`, which must not exist yet.
    pub(super) fn create(home: PathBuf, sweeper: &Arc<Sweeper>) -> Result<Self, SnapshotError> {
        let upper = Self {
            home,
            sweeper: sweeper.clone(),
        };
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
        self.sweeper.sweep(std::mem::take(&mut self.home));
    }
}
