//! Whether overlayfs works in a data directory: found out by a real mount, not by a version.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Lower, MountSource, MountSpec};
use crate::runner::private;

/// Why no step can run with this data directory.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The data directory is itself on an overlay, as in a container without a volume.
    #[error(
        "{} lies on an overlay file system, which cannot hold another overlay's changes: give --data a directory on a \
         plain file system (in a container: a volume)",
        .0.display()
    )]
    OnOverlay(PathBuf),
    /// Mounting isn't allowed.
    #[error(
        "mounting is not permitted: the worker needs CAP_SYS_ADMIN (run it as root; in a container: --privileged)"
    )]
    NotPermitted,
    /// Something else.
    #[error("trying overlayfs in {}: {reason}", path.display())]
    Failed {
        /// The data directory.
        path: PathBuf,
        /// What happened.
        reason: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Mounts an overlay in `data` and writes through it; nothing stays behind.
pub fn probe(data: &Path) -> Result<(), ProbeError> {
    let failed = |reason: &str| {
        let (path, reason) = (data.to_owned(), reason.to_owned());
        move |source| ProbeError::Failed {
            path,
            reason,
            source,
        }
    };
    let scratch = tempfile::Builder::new()
        .prefix("probe-")
        .tempdir_in(data)
        .map_err(failed("creating a directory"))?;
    let dirs = ["lower", "upper", "work", "merged"].map(|name| scratch.path().join(name));
    for dir in &dirs {
        fs::create_dir(dir).map_err(failed("creating a directory"))?;
    }
    fs::write(dirs[0].join("file"), "lower").map_err(failed("writing a file"))?;
    let [lower, upper, work, merged] = dirs;
    let source = MountSource::Overlay {
        lowers: vec![Lower::Directory(lower)],
        upper: Some((upper.clone(), work)),
    };
    let tried = private::run("overlay-probe", move || {
        private::mount(&MountSpec::new(source), &merged)?;
        fs::remove_file(merged.join("file"))?;
        fs::write(merged.join("other"), "upper")
    });
    match tried {
        Ok(Ok(())) if upper.join("other").exists() => Ok(()),
        Ok(Ok(())) => Err(failed("looking for what was written")(
            io::ErrorKind::NotFound.into(),
        )),
        Ok(Err(error)) | Err(error) => Err(explain(data, error, failed("mounting and writing"))),
    }
}

fn explain(
    data: &Path,
    error: io::Error,
    other: impl FnOnce(io::Error) -> ProbeError,
) -> ProbeError {
    const OVERLAYFS_SUPER_MAGIC: i64 = 0x794c_7630;
    let kind = rustix::fs::statfs(data).map(|answer| answer.f_type);
    if kind.is_ok_and(|kind| kind == OVERLAYFS_SUPER_MAGIC) {
        return ProbeError::OnOverlay(data.to_owned());
    }
    match error.raw_os_error() {
        Some(libc::EPERM) => ProbeError::NotPermitted,
        _ => other(error),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::runner::private;

    #[test]
    fn a_plain_file_system_will_do_and_nothing_stays() {
        let dir = tempfile::tempdir().unwrap();
        probe(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    /// Does something in a directory of an overlay. Threads that it starts inherit this one's mounts.
    pub(in crate::snapshots) fn on_an_overlay<T: Send + 'static>(
        act: impl FnOnce(&Path) -> T + Send + 'static,
    ) -> T {
        let dir = tempfile::tempdir().unwrap();
        let done = private::run("test", move || {
            let dirs = ["l", "u", "w", "m"].map(|name| dir.path().join(name));
            dirs.iter().for_each(|dir| fs::create_dir(dir).unwrap());
            let [lower, upper, work, merged] = dirs;
            let source = MountSource::Overlay {
                lowers: vec![Lower::Directory(lower)],
                upper: Some((upper, work)),
            };
            private::mount(&MountSpec::new(source), &merged).unwrap();
            act(&merged)
        });
        done.unwrap()
    }

    #[test]
    fn on_an_overlay_the_error_says_what_to_do() {
        let error = on_an_overlay(|dir| probe(dir).unwrap_err());
        assert!(matches!(error, ProbeError::OnOverlay(_)), "{error:?}");
        assert!(error.to_string().contains("volume"), "{error}");
    }
}
