//! The place to measure in: name spaces for processes, mounts and the network, so that nothing of a run is left on the
//! machine, however it ends.
//!
//! This process stays outside, starts itself again inside, and afterwards removes what name spaces do not: the folder, the
//! emulator's registration, the control groups of the reference engine.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use buildyard_tests::Scratch;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::BenchArgs;
use crate::binfmt;

/// Runs the bench inside, with the same arguments, and waits for it.
///
/// # Errors
/// Not root, or the name spaces cannot be made.
pub fn run(args: &BenchArgs) -> anyhow::Result<ExitCode> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "both engines mount and run containers: run `cargo xtask bench` as root"
    );
    let folder = Scratch::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("a runtime")?;
    let ended = runtime.block_on(inside(folder.path()));
    if !args.alone
        && let Err(error) = binfmt::forget()
    {
        eprintln!("{error:#}");
    }
    if let Some(name) = folder.path().file_name() {
        remove_groups(Path::new(name));
    }
    ended
}

/// What the name spaces lack when they are new, done inside: a loopback network, and a /run that is nobody else's, where
/// Docker and `ip netns` keep things.
pub(crate) fn furnish() -> anyhow::Result<()> {
    let commands: [&[&str]; 2] = [
        &["ip", "link", "set", "lo", "up"],
        &["mount", "-t", "tmpfs", "tmpfs", "/run"],
    ];
    for words in commands {
        let line = words.join(" ");
        let status = std::process::Command::new(words[0])
            .args(&words[1..])
            .status()
            .with_context(|| format!("running {line}"))?;
        ensure!(status.success(), "{line}: {status}");
    }
    Ok(())
}

/// The control group that the reference engine's steps are below, as a path of any hierarchy.
pub(crate) fn group() -> String {
    let folder = std::env::temp_dir();
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    format!("/{name}")
}

/// Removes the group from each hierarchy. Its processes have ended, so that only empty folders are left of it.
fn remove_groups(name: &Path) {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = std::fs::read_dir(root).into_iter().flatten().flatten();
    for hierarchy in hierarchies
        .map(|entry| entry.path())
        .chain([root.to_owned()])
    {
        remove_group(&hierarchy.join(name));
    }
}

fn remove_group(group: &Path) {
    let entries = std::fs::read_dir(group).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.path().is_dir()) {
        remove_group(&entry.path());
    }
    if group.is_dir()
        && let Err(error) = std::fs::remove_dir(group)
    {
        eprintln!("{} stays behind: {error}", group.display());
    }
}

async fn inside(folder: &Path) -> anyhow::Result<ExitCode> {
    let program = std::env::current_exe().context("the path of this program")?;
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--", "unshare"])
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child"])
        .args(["--mount-proc", "--"])
        .arg(program)
        .args(std::env::args_os().skip(1).collect::<Vec<OsString>>())
        .arg("--inside")
        .env("TMPDIR", folder)
        // A terminal's interrupt is for this process, which ends the other.
        .process_group(0);
    let mut interrupt = signal(SignalKind::interrupt()).context("watching for signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("watching for signals")?;
    let mut child = command.spawn().context("starting setpriv and unshare")?;
    let status = tokio::select! {
        status = child.wait() => status.context("waiting for the bench")?,
        _ = interrupt.recv() => return end(&mut child).await,
        _ = terminate.recv() => return end(&mut child).await,
    };
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Kills the first process inside: the kernel then kills all others, and `unshare` ends when they are gone.
async fn end(child: &mut Child) -> anyhow::Result<ExitCode> {
    eprintln!("interrupted: ending what runs");
    let unshare = child.id().context("it runs")?;
    let children = format!("/proc/{unshare}/task/{unshare}/children");
    let first = std::fs::read_to_string(children).unwrap_or_default();
    match first.trim().parse().ok().and_then(Pid::from_raw) {
        // It may be ending already.
        Some(first) => {
            let _ = kill_process(first, Signal::KILL);
        }
        // It has not forked yet.
        None => child.start_kill().context("ending unshare")?,
    }
    child.wait().await.context("waiting for the bench")?;
    Ok(ExitCode::from(130))
}
