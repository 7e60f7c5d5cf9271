//! The container's first process, from its birth until it becomes the step's command.
//!
//! The order is what makes it safe: it enters its control groups before it does anything, leaves the machine's file systems
//! before it looks at anything that the image contains, and gives up its rights last. Every call in here either succeeds
//! or ends the process with a message; there is nothing that is tried and forgotten, except where a comment says so.

mod command;
mod devices;
mod hide;
mod identity;
mod rootfs;

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::Mode;
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use super::message::Report;
use super::plan::{Network, Plan};
use super::sys;

/// The open files that come with a plan.
pub(super) struct Files {
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    /// The mount namespace in which the stage is.
    pub(super) stage: OwnedFd,
    /// The network to join.
    pub(super) network: Option<OwnedFd>,
    /// How to enter the control groups of v1.
    pub(super) entrances: Vec<OwnedFd>,
}

/// Why the command could not be started.
#[derive(Debug, thiserror::Error)]
pub(super) enum InitError {
    /// Something of the container could not be made.
    #[error("error during container init: {what}: {}", words(.source))]
    Prepare { what: String, source: io::Error },
    /// The command is at fault; in the words of `runc`.
    #[error("{0}")]
    Command(String),
}

type Result<T> = std::result::Result<T, InitError>;

/// Adds to an error what was tried.
fn prepare<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> InitError {
    let what = what.into();
    move |source| InitError::Prepare {
        what,
        source: source.into(),
    }
}

/// An error of the system as other programs word it: `no such file or directory`.
fn words(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_ascii_lowercase());
    first.into_iter().chain(letters).collect()
}

/// Becomes the container's command, and tells the worker by `report` what becomes of it. Returns only what it ends with
/// where that did not work. All descriptors of the process but `report` are closed: nobody may use or drop another one
/// afterwards.
pub(super) fn run(plan: &Plan, report: BorrowedFd<'_>, files: Files) -> i32 {
    match prepare_all(plan, report, files).and_then(|start| {
        let ready = Report::Starting.send(report);
        ready.map_err(prepare("telling the worker"))?;
        Ok(start)
    }) {
        Ok(start) => {
            let error = sys::execute(&start.program, &start.arguments, &start.environment);
            // The command's own standard error: this is where `runc` says it too.
            let name = start.program.to_string_lossy();
            eprintln!("exec {name}: {}", words(&error));
            1
        }
        Err(error) => {
            let text = format!("unable to start container process: {error}");
            // Nobody listens where the worker is gone; then the helper is about to go as well.
            let _ = Report::Failed(text).send(report);
            1
        }
    }
}

/// What is left to execute.
struct Start {
    program: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

fn prepare_all(plan: &Plan, report: BorrowedFd<'_>, files: Files) -> Result<Start> {
    rustix::process::umask(Mode::empty());
    for entrance in &files.entrances {
        // The only thread of this process, whatever its number is.
        rustix::io::write(entrance, b"0").map_err(prepare("entering a control group"))?;
    }
    enter_namespaces(plan, &files)?;
    rustix::process::setsid().map_err(prepare("starting a session"))?;
    let keyring = CString::new(format!("_ses.{}", plan.id)).map_err(prepare("naming a keyring"))?;
    sys::leave_keyring(&keyring).map_err(prepare("leaving the worker's keyring"))?;
    rustix::system::sethostname(plan.hostname.as_bytes())
        .map_err(prepare("setting the host name"))?;
    if plan.network == Network::New {
        sys::start_loopback().map_err(prepare("switching the loopback device on"))?;
    }
    if let Some(adjustment) = plan.process.oom_score_adj {
        std::fs::write("/proc/self/oom_score_adj", adjustment.to_string())
            .map_err(prepare("setting oom_score_adj"))?;
    }
    let null = rootfs::enter(plan)?;
    // Before anything of the image is looked at: what is open on the machine's file systems is a way out of the root.
    identity::standard_files(plan, files, null, report)?;
    hide::read_only(&plan.read_only)?;
    hide::mask(&plan.masked, rustix::stdio::stdin())?;
    rustix::process::umask(Mode::WGRP | Mode::WOTH);
    let environment = command::environment(&plan.process)?;
    // Last of what needs rights: they are meant for the command, and may leave room for no open file more.
    limit(plan)?;
    identity::give_up_rights(plan)?;
    command::start(&plan.process, environment)
}

fn enter_namespaces(plan: &Plan, files: &Files) -> Result<()> {
    if let Some(network) = &files.network {
        rustix::thread::move_into_link_name_space(
            network.as_fd(),
            Some(LinkNameSpaceType::Network),
        )
        .map_err(prepare("joining the step's network"))?;
    }
    rustix::thread::move_into_link_name_space(files.stage.as_fd(), Some(LinkNameSpaceType::Mount))
        .map_err(prepare("joining the stage"))?;
    // A copy of its own: the worker's thread must keep seeing the stage as it is.
    #[allow(unsafe_code)]
    // SAFETY: no descriptors are unshared, and the process has one thread.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.map_err(prepare(format!(
        "making a mount namespace for {}",
        plan.root
    )))
}

fn limit(plan: &Plan) -> Result<()> {
    for (resource, soft, hard) in &plan.process.limits {
        sys::limit(*resource, *soft, *hard)
            .map_err(prepare(format!("setting resource limit {resource}")))?;
    }
    Ok(())
}

/// Whether nothing but the machine's `null` device is behind a file.
fn is_null(stat: &rustix::fs::Stat) -> bool {
    rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::CharacterDevice
        && stat.st_rdev == rustix::fs::makedev(1, 3)
}
