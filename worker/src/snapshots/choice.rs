//! Which snapshotter a worker uses.

use std::error::Error;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use buildyard_layer::FlatFiles;

use super::{Directories, ErofsSnapshots, SnapshotError, Snapshotter, probe, probe_erofs};

/// What to use where nothing else is said.
const DEFAULT: SnapshotterChoice = SnapshotterChoice::Auto;

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
/// removed. That layers can be shown at all in `data` is tried as well.
///
/// # Errors
/// The directory cannot be used; or EROFS images were asked for and do not work there.
pub fn choose(
    choice: SnapshotterChoice,
    data: &Path,
    flats: &FlatFiles,
) -> Result<Arc<dyn Snapshotter>, Box<dyn Error + Send + Sync>> {
    let chosen = match choice {
        SnapshotterChoice::Directories => None,
        SnapshotterChoice::Erofs => Some(open_images(data, flats)?),
        SnapshotterChoice::Auto => match open_images(data, flats) {
            Ok(images) => Some(images),
            Err(error) => {
                let error = &*error as &dyn Error;
                tracing::info!(error, "layers are unpacked: EROFS images do not work here");
                None
            }
        },
    };
    let snapshotter = if chosen.is_some() {
        "erofs"
    } else {
        "directories"
    };
    tracing::info!(snapshotter, "layers are made ready for steps");
    if let Some(images) = chosen {
        remove(&data.join(DIRECTORIES))?;
        return Ok(Arc::new(images));
    }
    probe(data)?;
    remove(&data.join(IMAGES))?;
    Ok(Arc::new(Directories::open(&data.join(DIRECTORIES))?))
}

/// Where the two keep what they have, in the data directory.
const DIRECTORIES: &str = "snapshots";
const IMAGES: &str = "erofs";

/// The snapshotter of EROFS images, once they were found to work. That is remembered, beside what it keeps.
fn open_images(
    data: &Path,
    flats: &FlatFiles,
) -> Result<ErofsSnapshots, Box<dyn Error + Send + Sync>> {
    let (dir, circumstances) = (data.join(IMAGES), circumstances(data));
    let noted = dir.join("probed");
    let found = circumstances.is_some() && fs::read_to_string(&noted).ok() == circumstances;
    if !found && let Err(error) = probe_erofs(data) {
        // Where not even an overlay works, that is the reason to tell.
        probe(data)?;
        return Err(error.into());
    }
    let images = match ErofsSnapshots::open(&dir, flats.clone()) {
        // Something has changed after all.
        Err(_) if found && fs::remove_file(&noted).is_ok() => return open_images(data, flats),
        opened => opened?,
    };
    if let Some(circumstances) = circumstances.filter(|_| !found) {
        fs::write(&noted, circumstances).map_err(SnapshotError::io("writing", &noted))?;
    }
    Ok(images)
}

/// What decides whether images work in `data`: the kernel since it was booted, the file system, and the user namespace.
fn circumstances(data: &Path) -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let device = fs::metadata(data).ok()?.dev();
    let user = fs::read_link("/proc/self/ns/user").ok()?;
    Some(format!("{} {device} {}\n", boot.trim(), user.display()))
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

    #[test]
    fn what_the_probe_found_is_remembered_for_this_boot_and_place() {
        let dir = tempfile::tempdir().unwrap();
        let flats = FlatFiles::new(dir.path().join("flats")).unwrap();
        let noted = dir.path().join("erofs/probed");
        let open = || drop(choose(SnapshotterChoice::Erofs, dir.path(), &flats).unwrap());
        open();
        let remembered = fs::read_to_string(&noted).unwrap();
        assert_eq!(Some(&remembered), circumstances(dir.path()).as_ref());
        fs::write(&noted, "another boot").unwrap();
        open();
        assert_eq!(fs::read_to_string(&noted).unwrap(), remembered);
    }
}
