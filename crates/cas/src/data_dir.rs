//! The directory that a process keeps its data in: one process at a time, and how much room is left.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

const LOCK_FILE: &str = "buildyard.lock";

/// The right to use a data directory. It ends when this is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct DirGuard {
    /// The kernel's lock hangs on the open file. The file itself stays: removing it would race with the next process.
    _file: File,
}

/// Another process uses the directory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the data directory {path} is in use by {role} (process {pid}); stop that process, or give this one another \
     directory with --data"
)]
pub struct DirLocked {
    /// The directory.
    pub path: PathBuf,
    /// The process that has it, as seen from where it runs.
    pub pid: String,
    /// What that process does.
    pub role: String,
}

/// Why a directory could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process uses it.
    #[error(transparent)]
    Locked(#[from] DirLocked),
    /// The directory cannot be made or written.
    #[error(
        "cannot use {path} as the data directory; it must be a directory that this user may write"
    )]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

/// Takes the data directory `path` for this process and makes it if it is missing. `role` is what the process is, for
/// the message that a second one gets: `buildyard up`. A process takes one directory once, whatever roles it has.
pub fn lock_data_dir(path: &Path, role: &str) -> Result<DirGuard, LockError> {
    let unusable = |source| LockError::Unusable {
        path: path.to_owned(),
        source,
    };
    std::fs::create_dir_all(path).map_err(unusable)?;
    // Not truncated: until the lock is taken, what it says is the other process's.
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path.join(LOCK_FILE))
        .map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(holder(path, file).into()),
        Err(TryLockError::Error(error)) => return Err(unusable(error)),
    }
    write_holder(&mut file, role).map_err(unusable)?;
    Ok(DirGuard { _file: file })
}

fn write_holder(file: &mut File, role: &str) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{} {role}", std::process::id())
}

/// Who has the directory. A process that has just taken it may not have written that yet.
fn holder(path: &Path, file: File) -> DirLocked {
    let mut text = String::new();
    let read = file.take(1000).read_to_string(&mut text);
    let (pid, role) = text
        .trim()
        .split_once(' ')
        .filter(|_| read.is_ok())
        .unwrap_or(("unknown", "another process"));
    DirLocked {
        path: path.to_owned(),
        pid: pid.to_owned(),
        role: role.to_owned(),
    }
}

/// How many bytes an unprivileged process may still write to the file system that `path` lies on.
pub fn free_space(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// The size of the file system that `path` lies on, in bytes.
pub fn disk_size(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_blocks.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_with_the_first_ones_pid() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let data = dir.path().join("made/on/demand");
        let guard = lock_data_dir(&data, "buildyard up").expect("nobody has it");
        let error = lock_data_dir(&data, "buildyard worker").expect_err("it is taken");
        let LockError::Locked(locked) = &error else {
            panic!("{error}")
        };
        assert_eq!(locked.pid, std::process::id().to_string());
        assert_eq!(locked.role, "buildyard up");
        assert!(
            error
                .to_string()
                .contains("is in use by buildyard up (process "),
            "{error}"
        );
        drop(guard);
        lock_data_dir(&data, "buildyard worker").expect("it is free again");
    }

    #[test]
    fn a_lock_left_by_a_dead_process_does_not_count() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(
            dir.path().join(LOCK_FILE),
            "1 buildyard up with a longer text than ours\n",
        )
        .expect("written");
        let _guard = lock_data_dir(dir.path(), "b").expect("nobody holds it");
        let text = std::fs::read_to_string(dir.path().join(LOCK_FILE)).expect("readable");
        assert_eq!(text, format!("{} b\n", std::process::id()));
    }

    #[test]
    fn a_file_is_no_data_directory() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let error = lock_data_dir(file.path(), "x").expect_err("it is a file");
        assert!(matches!(error, LockError::Unusable { .. }), "{error}");
    }

    #[test]
    fn there_is_some_space_somewhere() {
        assert!(free_space(Path::new("/")).is_ok());
        assert!(free_space(Path::new("/nonexistent/path")).is_err());
    }
}
