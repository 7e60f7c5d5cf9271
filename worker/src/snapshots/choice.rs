//! Which snapshotter a worker uses.

use std::error::Error;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use buildyard_layer::FlatFiles;

use super::{Directories, ErofsSnapshots, SnapshotError, Snapshotter, probe_erofs};

/// What to use where nothing else is said.
const DEFAULT: SnapshotterChoice = SnapshotterChoice::Directories;

/// What a worker was told to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotterChoice {
    /// EROFS images where they work, else directories.
    Auto,
    /// EROFS images over the flat files.
    Erofs,
    /// Layers unpacked into directories.
    Directories,
}

impl SnapshotterChoice {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Erofs, Self::Directories];

    /// Its name in flags and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Erofs => "erofs",
            Self::Directories => "directories",
        }
    }
}

impl Default for SnapshotterChoice {
    fn default() -> Self {
        DEFAULT
    }
}

impl fmt::Display for SnapshotterChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no snapshotter has.
#[derive(Debug, thiserror::Error)]
#[error("there is no snapshotter {0:?}; there are auto, erofs and directories")]
pub struct UnknownSnapshotter(String);

impl FromStr for SnapshotterChoice {
    type Err = UnknownSnapshotter;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|choice| choice.name() == text);
        found.ok_or_else(|| UnknownSnapshotter(text.to_owned()))
    }
}

/// Opens the snapshotter that was chosen, in a directory of its own under `data`. What the other one kept there is
/// removed.
///
/// # Errors
/// The directory cannot be used; or EROFS images were asked for and do not work there.
pub fn choose(
    choice: SnapshotterChoice,
    data: &Path,
    flats: &FlatFiles,
) -> Result<Arc<dyn Snapshotter>, Box<dyn Error + Send + Sync>> {
    let erofs = match choice {
        SnapshotterChoice::Directories => false,
        SnapshotterChoice::Erofs => probe_erofs(data).map(|()| true)?,
        SnapshotterChoice::Auto => match probe_erofs(data) {
            Ok(()) => true,
            Err(error) => {
                let error = &error as &dyn Error;
                tracing::info!(error, "layers are unpacked: EROFS images do not work here");
                false
            }
        },
    };
    let (directories, images) = (data.join("snapshots"), data.join("erofs"));
    let snapshotter = if erofs { "erofs" } else { "directories" };
    tracing::info!(snapshotter, "layers are made ready for steps");
    if erofs {
        remove(&directories)?;
        Ok(Arc::new(ErofsSnapshots::open(&images, flats.clone())?))
    } else {
        remove(&images)?;
        Ok(Arc::new(Directories::open(&directories)?))
    }
}

fn remove(dir: &Path) -> Result<(), SnapshotError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(SnapshotError::io("removing", dir)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_known_by_its_name() {
        for choice in SnapshotterChoice::ALL {
            assert_eq!(choice.name().parse::<SnapshotterChoice>().unwrap(), choice);
        }
        assert!("overlay".parse::<SnapshotterChoice>().is_err());
    }

    #[test]
    fn what_the_other_one_kept_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let flats = FlatFiles::new(dir.path().join("flats")).unwrap();
        let there = || ["snapshots", "erofs"].map(|name| dir.path().join(name).exists());
        for (choice, expected) in [
            (SnapshotterChoice::Directories, [true, false]),
            (SnapshotterChoice::Erofs, [false, true]),
            (SnapshotterChoice::Directories, [true, false]),
        ] {
            let snapshots = choose(choice, dir.path(), &flats).unwrap();
            assert_eq!(snapshots.reads_flats(), choice == SnapshotterChoice::Erofs);
            assert_eq!(there(), expected, "{choice}");
        }
    }
}
