//! Whether EROFS images over flat files work in a data directory: found out by a real one, not by a version.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use buildyard_layer::{Entry, FlatFiles, Kind, Time, Toc, random_flat_id};
use buildyard_model::{Digest, LayerId};

use super::ErofsSnapshots;
use crate::runner::private;
use crate::snapshots::{LayerContent, SnapshotError, Snapshotter};

/// Why EROFS images cannot be used with a data directory.
#[derive(Debug, thiserror::Error)]
pub enum ErofsProbeError {
    /// An image could not be made or mounted.
    #[error("an EROFS image cannot be used in the data directory")]
    Snapshot(#[from] SnapshotError),
    /// It could be mounted, but not used as the lower directory of an overlay.
    #[error(
        "an EROFS image cannot be shown by an overlay in the data directory (Linux 6.12 or later can)"
    )]
    Show(#[source] io::Error),
}

/// What the one file of the probe's layer contains.
const CONTENTS: &[u8] = b"lower";

/// Shows a layer with one file, read out of a flat file, through an overlay in `data`, and writes to it; nothing stays behind.
///
/// # Errors
/// Something of that is not possible here.
pub fn probe_erofs(data: &Path) -> Result<(), ErofsProbeError> {
    let scratch = tempfile::Builder::new()
        .prefix("probe-")
        .tempdir_in(data)
        .map_err(SnapshotError::io("creating a directory in", data))?;
    let flats = scratch.path().join("flats");
    let writing = SnapshotError::io("writing a file in", &flats);
    let (flats, toc) = layer(&flats).map_err(writing)?;
    let snapshots = ErofsSnapshots::open(&scratch.path().join("snapshots"), flats)?;
    let chain = [LayerId(Digest::of("probe"))];
    let content = LayerContent {
        toc: &Arc::new(toc),
        below: &[],
        unpack: &|_| Err("nothing is unpacked".into()),
    };
    snapshots.ensure(&chain, &content)?;
    let upper = snapshots.new_upper(&chain)?;
    let mounts = snapshots.mounts(&chain, Some(&upper))?;
    let place = scratch.path().join("merged");
    fs::create_dir(&place).map_err(SnapshotError::io("creating the directory", &place))?;
    let shown = private::run("erofs-probe", move || {
        private::mount_all(&mounts.specs, &place)?;
        let read = fs::read(place.join("file"))?;
        fs::write(place.join("file"), "upper")?;
        Ok(read)
    });
    match shown.and_then(|shown| shown) {
        Ok(read) if read == CONTENTS && upper.dir().join("file").exists() => Ok(()),
        Ok(_) => Err(ErofsProbeError::Show(io::ErrorKind::InvalidData.into())),
        Err(error) => Err(ErofsProbeError::Show(error)),
    }
}

fn layer(dir: &Path) -> io::Result<(FlatFiles, Toc)> {
    let flats = FlatFiles::new(dir)?;
    let id = random_flat_id();
    let writer = flats.writer()?;
    let file = writer.append_file(&mut &CONTENTS[..])?;
    writer.commit(id)?;
    let entry = Entry {
        path: b"file".to_vec(),
        kind: Kind::File {
            size: file.size,
            content: file.content,
            extents: file.extents,
            ino: 0,
        },
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: Time::default(),
        xattrs: Default::default(),
    };
    let toc = Toc {
        entries: vec![entry],
        flats: vec![id],
        ..Toc::default()
    };
    Ok((flats, toc))
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
