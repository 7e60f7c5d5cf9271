//! The step helper: this very program, started by the worker before there is anything to do.
//!
//! It has one thread and little memory, so a container's first process is a cheap copy of it; the worker itself never
//! forks. It is the first process of a process-id namespace of its own: when it ends, however it ends, the kernel ends every
//! container in the same moment. And it ends when the worker does, as its socket is closed then.
//!
//! It runs from a read-only mount of its own program file. So a container that gets hold of `/proc/self/exe` before its
//! command is executed (an image whose program is a link to it) holds a file that nobody can write to through it.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, Mode, OFlags, StatVfsMountFlags};
use rustix::mount::OpenTreeFlags;
use rustix::process::{DumpableBehavior, Signal, WaitId, WaitIdOptions, WaitIdStatus};

use super::groups;
use super::init::{self, Files};
use super::message::{READY, Report, read_plan};
use super::plan::{Network, Plan};
use super::sys::{self, Cloned};

/// The hidden command under which a program that runs steps must call [`step_helper`] before it does anything else.
pub const STEP_HELPER: &str = "step-helper";

/// Says that the program already runs from its read-only mount.
const PROTECTED: &str = "protected";

/// Signals that are meant for the worker and reach the helper beside it.
const NOT_MEANT: [i32; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];

/// The step helper's life. `arguments` are those behind [`STEP_HELPER`].
pub fn step_helper(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> ExitCode {
    let protected = arguments.into_iter().any(|argument| argument == PROTECTED);
    let ended = if protected { live() } else { protect() };
    match ended {
        Ok(code) => code,
        Err(error) => {
            eprintln!(
                "the step helper cannot go on: {error} (it is started by a worker, not by hand)"
            );
            ExitCode::FAILURE
        }
    }
}

/// Executes this program once more, from a read-only mount of its file that is attached nowhere.
fn protect() -> io::Result<ExitCode> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let program = rustix::mount::open_tree(CWD, "/proc/self/exe", flags)?;
    sys::set_mount_attributes(program.as_fd(), sys::READ_ONLY, false)?;
    let arguments = ["buildyard", STEP_HELPER, PROTECTED].map(CString::new);
    let arguments = arguments.into_iter().collect::<Result<Vec<_>, _>>()?;
    Err(sys::execute_file(program.as_fd(), &arguments))
}

fn live() -> io::Result<ExitCode> {
    sys::close_from(3)?;
    let program = rustix::fs::open(
        "/proc/self/exe",
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    if !rustix::fs::fstatvfs(&program)?
        .f_flag
        .contains(StatVfsMountFlags::RDONLY)
    {
        return Err(io::Error::other("its program file could be written to"));
    }
    drop(program);
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::process::setsid()?;
    rustix::process::chdir("/")?;
    sys::ignore_signals(&NOT_MEANT);
    let control = take_control()?;
    match sys::clone(libc::CLONE_NEWPID, None)? {
        Cloned::Child => {
            // Where this one is killed, the outer one is all that the worker has hold of.
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            Ok(serve(&control))
        }
        Cloned::Parent { process } => {
            drop(control);
            wait(process.as_fd())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The socket to the worker comes as standard input.
fn take_control() -> io::Result<OwnedFd> {
    let control = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(control)
}

/// A container that runs.
struct Running {
    process: OwnedFd,
    /// `None` when the worker's side is gone.
    report: Option<OwnedFd>,
    /// Its control groups.
    groups: Vec<String>,
}

/// Starts containers as plans come, and reports their ends, until the worker is gone.
fn serve(control: &OwnedFd) -> ExitCode {
    let mut running: Vec<Running> = Vec::new();
    if sys::send(control.as_fd(), READY, &[]).is_err() {
        return ExitCode::FAILURE;
    }
    loop {
        let Ok((asked, ready)) = next(control, &running) else {
            return ExitCode::FAILURE;
        };
        for index in ready.into_iter().rev() {
            if ended(&mut running[index]) {
                running.swap_remove(index);
            }
        }
        if asked {
            match sys::receive(control.as_fd(), &mut [0; 16]) {
                Ok((0, _)) => {
                    clean_up(&running);
                    return ExitCode::SUCCESS;
                }
                Ok((_, files)) => running.extend(start(files)),
                // A message that came in part, as too many files are open: its sender sees the socket of its step end.
                Err(error) if error.raw_os_error().is_none() => {}
                Err(_) => return ExitCode::FAILURE,
            }
        }
    }
}

/// Ends what runs when the worker is gone, and removes the control groups that it cannot remove any more. What runs would
/// end with this process anyway.
fn clean_up(running: &[Running]) {
    let groups = || running.iter().flat_map(|container| &container.groups);
    for container in running {
        kill(&container.process);
    }
    for group in groups() {
        groups::thaw(Path::new(group));
    }
    for container in running {
        // It fails only if the process has been waited for.
        let _ = wait(container.process.as_fd());
    }
    for group in groups() {
        groups::remove(Path::new(group));
    }
}

/// Kills the first process of a container, and with it the others.
fn kill(process: &OwnedFd) {
    // It fails only if the process has just ended.
    let _ = rustix::process::pidfd_send_signal(process, Signal::KILL);
}

/// Waits until there is something to do: whether the worker asks, and which containers have news.
fn next(control: &OwnedFd, running: &[Running]) -> io::Result<(bool, Vec<usize>)> {
    let mut polled = vec![PollFd::new(control, PollFlags::IN)];
    let mut whose = Vec::new();
    for (index, container) in running.iter().enumerate() {
        polled.push(PollFd::new(&container.process, PollFlags::IN));
        whose.push(index);
        if let Some(report) = &container.report {
            // Nothing is ever sent on it: it becomes ready when the other side is gone.
            polled.push(PollFd::new(report, PollFlags::IN));
            whose.push(index);
        }
    }
    loop {
        match poll(&mut polled, None) {
            Err(rustix::io::Errno::INTR) => {}
            other => {
                other?;
                break;
            }
        }
    }
    let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
    let news = polled[1..].iter().zip(whose);
    let news = news.filter_map(|(fd, index)| is_ready(fd).then_some(index));
    let mut news: Vec<usize> = news.collect();
    news.dedup();
    Ok((is_ready(&polled[0]), news))
}

/// Whether a container with news is gone. One that nobody waits for any more is killed.
fn ended(container: &mut Running) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    match rustix::process::waitid(WaitId::PidFd(container.process.as_fd()), options) {
        Ok(None) => {
            kill(&container.process);
            // Its end is the next news. The report stays ready from now on: it would be news without a pause.
            container.report = None;
            false
        }
        Ok(Some(status)) => {
            if let Some(report) = &container.report {
                // Nobody listens where the worker's side is gone.
                let _ = end(&status).send(report.as_fd());
            }
            true
        }
        Err(_) => true,
    }
}

fn end(status: &WaitIdStatus) -> Report {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Report::Exited(code),
        (None, signal) => Report::Killed(signal.unwrap_or(libc::SIGKILL)),
    }
}

/// Waits for a child.
fn wait(process: BorrowedFd<'_>) -> io::Result<()> {
    loop {
        match rustix::process::waitid(WaitId::PidFd(process), WaitIdOptions::EXITED) {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other.map(drop)?),
        }
    }
}

/// Starts a container from the files that came in one message.
fn start(files: Vec<OwnedFd>) -> Option<Running> {
    let mut files = files.into_iter();
    let plan = files.next()?;
    let report = files.next()?;
    match born(plan, files, &report) {
        Ok((process, groups)) => {
            let told = Report::Born.send_with(report.as_fd(), &[process.as_fd()]);
            // Where nobody listens it is killed in the next round.
            drop(told);
            Some(Running {
                process,
                report: Some(report),
                groups,
            })
        }
        Err(error) => {
            let text = format!("starting the container's first process: {error}");
            let _ = Report::Failed(text).send(report.as_fd());
            None
        }
    }
}

fn born(
    plan: OwnedFd,
    files: impl Iterator<Item = OwnedFd>,
    report: &OwnedFd,
) -> io::Result<(OwnedFd, Vec<String>)> {
    let plan = read_plan(plan)?;
    let (files, unified) = sort(&plan, files)?;
    let mut flags = libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    if plan.network == Network::New {
        flags |= libc::CLONE_NEWNET;
    }
    match sys::clone(flags, unified.as_ref().map(AsFd::as_fd))? {
        Cloned::Parent { process } => Ok((process, plan.groups)),
        Cloned::Child => {
            // A directory of the machine's, in the worker's mount namespace.
            drop(unified);
            sys::default_signals();
            sys::unblock_signals();
            let live = std::panic::AssertUnwindSafe(|| init::run(&plan, report.as_fd(), files));
            // Nothing of the helper may run in here, whatever happens.
            sys::exit(std::panic::catch_unwind(live).unwrap_or(1))
        }
    }
}

/// The files of a plan by what they are for, and the group of the unified hierarchy.
fn sort(
    plan: &Plan,
    mut files: impl Iterator<Item = OwnedFd>,
) -> io::Result<(Files, Option<OwnedFd>)> {
    let mut next = || {
        files
            .next()
            .ok_or_else(|| io::Error::other("files of the plan are missing"))
    };
    let (stdout, stderr, stage) = (next()?, next()?, next()?);
    let network = match plan.network {
        Network::Joined => Some(next()?),
        Network::Host | Network::New => None,
    };
    let unified = plan.unified.then(&mut next).transpose()?;
    let entrances = (0..plan.entrances)
        .map(|_| next())
        .collect::<io::Result<_>>()?;
    let files = Files {
        stdout,
        stderr,
        stage,
        network,
        entrances,
    };
    Ok((files, unified))
}
