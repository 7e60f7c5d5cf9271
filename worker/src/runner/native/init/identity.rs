//! Who the step's command is, and what it may do.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{Gid, Uid};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::{Files, InitError, Result, is_null, prepare, words};
use crate::runner::native::plan::{Plan, Process};
use crate::runner::native::sys;

/// Gives the process its standard input, output and error, and closes all other files but `report`: whoever names one by
/// `/proc/self/fd` finds nothing of the machine's (CVE-2024-21626). Input is the null device, open for reading and writing;
/// output and error belong to the user: `/dev/stdout` is to be opened again.
pub(super) fn standard_files(
    plan: &Plan,
    files: Files,
    null: OwnedFd,
    report: BorrowedFd<'_>,
) -> Result<()> {
    let failed = || prepare("setting up standard input and output");
    rustix::stdio::dup2_stdin(&null).map_err(failed())?;
    rustix::stdio::dup2_stdout(&files.stdout).map_err(failed())?;
    rustix::stdio::dup2_stderr(&files.stderr).map_err(failed())?;
    for file in [&files.stdout, &files.stderr] {
        let stat = rustix::fs::fstat(file).map_err(failed())?;
        if !is_null(&stat) && stat.st_uid != plan.process.uid {
            let owner = Uid::from_raw(plan.process.uid);
            rustix::fs::fchown(file, Some(owner), None).map_err(failed())?;
        }
    }
    // What is owned here is closed by its owners; the rest is a copy of what the helper holds, and nobody's here.
    drop((files, null));
    sys::close_all_but(report).map_err(prepare("closing the worker's files"))
}

/// Enters the working directory, has system calls filtered, and becomes the user with the capabilities of the plan.
pub(super) fn give_up_rights(plan: &Plan) -> Result<()> {
    let process = &plan.process;
    let entered = enter(process);
    if process.no_new_privileges {
        rustix::thread::set_no_new_privs(true).map_err(prepare("setting no_new_privs"))?;
    }
    // Filtering needs a right that is about to go.
    if !plan.filter.is_empty() {
        sys::filter_calls(&plan.filter).map_err(prepare("filtering system calls"))?;
    }
    bound(process.bounding)?;
    rustix::thread::set_keep_capabilities(true).map_err(prepare("keeping capabilities"))?;
    become_user(process)?;
    // A directory that only the user may enter.
    if entered.is_err() {
        enter(process).map_err(|error| chdir_failed(process, error))?;
    }
    stay_inside(process)?;
    rustix::thread::set_keep_capabilities(false).map_err(prepare("keeping no capabilities"))?;
    let sets = CapabilitySets {
        effective: CapabilitySet::from_bits_retain(process.effective),
        permitted: CapabilitySet::from_bits_retain(process.permitted),
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets).map_err(prepare("giving up capabilities"))
}

fn enter(process: &Process) -> std::result::Result<(), Errno> {
    rustix::process::chdir(process.cwd.as_str())
}

fn chdir_failed(process: &Process, error: Errno) -> InitError {
    let text = format!(
        "error during container init: chdir to cwd ({:?}) set in config.json failed: {}",
        process.cwd,
        words(&error.into())
    );
    InitError::Command(text)
}

/// The working directory must lie in the root: a link to an open directory of the machine's would lead out of it.
fn stay_inside(process: &Process) -> Result<()> {
    match rustix::process::getcwd(Vec::new()) {
        Ok(path) if path.as_bytes().starts_with(b"/") => Ok(()),
        Ok(_) | Err(Errno::NOENT) => Err(InitError::Command(format!(
            "error during container init: the working directory {} is not in the container",
            process.cwd
        ))),
        Err(error) => Err(prepare("looking at the working directory")(error)),
    }
}

/// Takes capabilities away for good: no program that is executed gets them.
fn bound(kept: u64) -> Result<()> {
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        if kept & (1 << bit) != 0 {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // The kernel knows no more of them.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(prepare("bounding capabilities")(error)),
        }
    }
    Ok(())
}

fn become_user(process: &Process) -> Result<()> {
    let groups: Vec<Gid> = process
        .groups
        .iter()
        .map(|gid| Gid::from_raw(*gid))
        .collect();
    rustix::thread::set_thread_groups(&groups).map_err(prepare("setting groups"))?;
    let gid = Gid::from_raw(process.gid);
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(prepare("setting the group"))?;
    let uid = Uid::from_raw(process.uid);
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(prepare("setting the user"))
}
