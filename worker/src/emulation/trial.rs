//! Whether a program of an architecture really runs, in a root directory where there is nothing else.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::thread::LinkNameSpaceType;
use tempfile::TempDir;

use super::architecture::Architecture;
use super::elf;
use crate::runner::UserNamespace;

/// What the programs of `elf.rs` end with.
pub(super) const EXIT_CODE: i32 = 42;

/// A program that has been started.
struct Trial {
    child: Child,
    /// Its root directory, removed with this.
    _root: TempDir,
}

/// Runs the smallest programs of the architectures side by side, in `namespace` if there is one. Returns what became of
/// each, in their order.
pub(super) fn run_all<'a>(
    architectures: impl IntoIterator<Item = &'a Architecture>,
    namespace: Option<&UserNamespace>,
) -> Vec<io::Result<()>> {
    let started = architectures
        .into_iter()
        .map(|architecture| begin(architecture, namespace));
    let started: Vec<io::Result<Trial>> = started.collect();
    let ended = started.into_iter().map(|trial| trial.and_then(Trial::end));
    ended.collect()
}

/// Runs one of them.
pub(super) fn run(
    architecture: &Architecture,
    namespace: Option<&UserNamespace>,
) -> io::Result<()> {
    begin(architecture, namespace).and_then(Trial::end)
}

fn begin(architecture: &Architecture, namespace: Option<&UserNamespace>) -> io::Result<Trial> {
    let root = tempfile::Builder::new()
        .prefix("buildyard-trial-")
        .permissions(Permissions::from_mode(0o755))
        .tempdir()?;
    let path = root.path().join("program");
    fs::write(&path, elf::program(architecture))?;
    fs::set_permissions(&path, Permissions::from_mode(0o755))?;
    let child = start(root.path(), namespace)?;
    Ok(Trial { child, _root: root })
}

impl Trial {
    fn end(self) -> io::Result<()> {
        let status = wait(self.child)?;
        if status.code() == Some(EXIT_CODE) {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "a program that exits with {EXIT_CODE} ended with {status}"
        )))
    }
}

fn start(root: &std::path::Path, namespace: Option<&UserNamespace>) -> io::Result<Child> {
    let namespace = namespace
        .map(|namespace| fs::File::open(&namespace.path))
        .transpose()?;
    let root = std::ffi::CString::new(std::os::unix::ffi::OsStrExt::as_bytes(root.as_os_str()))?;
    let mut command = Command::new("/program");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .env_clear();
    #[allow(unsafe_code)]
    // SAFETY: the closure runs in the forked child, which has one thread; it makes system calls and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            if let Some(namespace) = &namespace {
                rustix::thread::move_into_link_name_space(
                    namespace.as_fd(),
                    Some(LinkNameSpaceType::User),
                )?;
            }
            rustix::process::chroot(root.as_c_str())?;
            rustix::process::chdir(c"/")?;
            Ok(())
        });
    }
    // Another thread that forks at this moment may hold the file open for writing until it executes something.
    let begun = Instant::now();
    loop {
        match command.spawn() {
            Err(error)
                if error.kind() == io::ErrorKind::ExecutableFileBusy
                    && begun.elapsed() < PATIENCE =>
            {
                sleep(Duration::from_millis(5));
            }
            other => return other,
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(30);

fn wait(mut child: Child) -> io::Result<ExitStatus> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        sleep(Duration::from_millis(1));
    }
    child.kill()?;
    child.wait()?;
    Err(io::Error::new(
        io::ErrorKind::TimedOut,
        "a program of three instructions did not end within half a minute",
    ))
}
