//! Whether EROFS images over flat files work in a data directory: found out by a real one, not by a version.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use buildyard_layer::erofs::{ErofsError, write_erofs};
use buildyard_layer::{Entry, Extent, ExtentSource, Kind, Time, Toc};
use buildyard_model::{Digest, FlatId};

use super::mounter;
use crate::runner::private;
use crate::snapshots::{Lower, MountSource, MountSpec};

/// Why EROFS images cannot be used with a data directory.
#[derive(Debug, thiserror::Error)]
pub enum ErofsProbeError {
    /// The files could not be written.
    #[error("a file cannot be written in the data directory")]
    Write(#[source] io::Error),
    /// The image could not be written.
    #[error("an EROFS image cannot be written in the data directory")]
    Image(#[from] ErofsError),
    /// It could not be mounted, or not be used as the lower directory of an overlay.
    #[error(
        "an EROFS image cannot be shown by an overlay in the data directory (Linux 6.12 or later can)"
    )]
    Show(#[source] io::Error),
}

/// What the one file of the probe's layer contains.
const CONTENTS: &[u8] = b"lower";
/// The flat file that it lies in.
const FLAT: FlatId = FlatId::from_bytes([0; 32]);

/// Shows a layer with one file, read out of a flat file, through an overlay in `data`, and writes to it; nothing stays behind.
/// As few directories as can be are made on the disk: where others use it too, each takes milliseconds to make and to remove.
///
/// # Errors
/// Something of that is not possible here.
pub fn probe_erofs(data: &Path) -> Result<(), ErofsProbeError> {
    let scratch = tempfile::Builder::new().prefix("probe-").tempdir_in(data);
    let scratch = scratch.map_err(ErofsProbeError::Write)?;
    let in_scratch = |name: &str| scratch.path().join(name);
    let (image, flat) = (in_scratch("image"), in_scratch("flat"));
    write_erofs(
        &[Arc::new(layer())],
        &[],
        &Nothing,
        &image,
        &in_scratch("side"),
    )?;
    // A device ends with a whole block.
    let padded = [CONTENTS, &[0; 512 - CONTENTS.len()]].concat();
    let written = File::create(&flat).and_then(|mut file| file.write_all(&padded));
    written.map_err(ErofsProbeError::Write)?;
    let [upper, work, memory] = ["upper", "work", "memory"].map(in_scratch);
    for dir in [&upper, &work, &memory] {
        fs::create_dir(dir).map_err(ErofsProbeError::Write)?;
    }
    let changes = (upper.clone(), work);
    let shown = private::run("erofs-probe", move || show(&image, &flat, &memory, changes));
    match shown.and_then(|shown| shown) {
        Ok(read) if read == CONTENTS && upper.join("file").exists() => Ok(()),
        Ok(_) => Err(ErofsProbeError::Show(io::ErrorKind::InvalidData.into())),
        Err(error) => Err(ErofsProbeError::Show(error)),
    }
}

/// Mounts the image and an overlay with these directories for changes, in memory that is mounted at `memory`. Reads the file, and
/// writes to it.
fn show(
    image: &Path,
    flat: &Path,
    memory: &Path,
    changes: (std::path::PathBuf, std::path::PathBuf),
) -> io::Result<Vec<u8>> {
    let in_memory = MountSpec::new(MountSource::Tmpfs {
        size: None,
        mode: 0o700,
    });
    private::mount(&in_memory, memory)?;
    let [lower, merged] = ["lower", "merged"].map(|name| memory.join(name));
    fs::create_dir(&lower)?;
    fs::create_dir(&merged)?;
    let mount = mounter::make(&File::open(image)?, &[File::open(flat)?])?;
    mounter::attach(mount, &lower)?;
    let overlay = MountSpec::new(MountSource::Overlay {
        lowers: vec![Lower::Directory(lower)],
        upper: Some(changes),
    });
    private::mount(&overlay, &merged)?;
    let file = merged.join("file");
    let read = fs::read(&file)?;
    fs::write(&file, "upper")?;
    Ok(read)
}

fn layer() -> Toc {
    let length = CONTENTS.len() as u64;
    let entry = Entry {
        path: b"file".to_vec(),
        kind: Kind::File {
            size: length,
            content: Digest::of(CONTENTS),
            extents: vec![Extent {
                flat: 0,
                offset: 0,
                length,
                at: 0,
            }],
            ino: 0,
        },
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: Time::default(),
        xattrs: Default::default(),
    };
    Toc {
        entries: vec![entry],
        flats: vec![FLAT],
        ..Toc::default()
    }
}

/// Where no bytes are read from: the one file's stay where they are.
struct Nothing;

impl ExtentSource for Nothing {
    fn read_at(&self, _: FlatId, _: u64, _: &mut [u8]) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshots::probe::tests::on_an_overlay;

    #[test]
    fn a_plain_file_system_will_do_and_nothing_stays() {
        let dir = tempfile::tempdir().unwrap();
        probe_erofs(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_overlay_will_not_do() {
        on_an_overlay(|dir| probe_erofs(dir).unwrap_err());
    }
}
