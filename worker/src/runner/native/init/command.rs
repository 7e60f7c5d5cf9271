//! Finding the command in the container, in the words of `runc` where it is not there: they come to those who build images,
//! and what reads them knows these.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

use super::{InitError, Result, Start, prepare, words};
use crate::runner::native::plan::Process;

/// More of a user list is not read.
const MOST_BYTES: u64 = 16 << 20;

/// The environment: of a name that is there twice the last value, and the user's `HOME`.
pub(super) fn environment(process: &Process) -> Result<Vec<(String, String)>> {
    let mut all: Vec<(String, String)> = Vec::with_capacity(process.env.len() + 1);
    let mut known: HashMap<&str, usize> = HashMap::new();
    for variable in &process.env {
        let (name, value) = variable
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| {
                let text = format!(
                    "error during container init: invalid environment variable: {variable:?}"
                );
                InitError::Command(text)
            })?;
        match known.get(name) {
            Some(index) => all[*index].1 = value.to_owned(),
            None => {
                known.insert(name, all.len());
                all.push((name.to_owned(), value.to_owned()));
            }
        }
    }
    match known.get("HOME") {
        Some(index) if !all[*index].1.is_empty() => {}
        Some(index) => all[*index].1 = home(process.uid)?,
        None => all.push(("HOME".to_owned(), home(process.uid)?)),
    }
    Ok(all)
}

/// The user's directory by the container's `/etc/passwd`, `/` if it is not in there.
fn home(uid: u32) -> Result<String> {
    let failed = || prepare("reading /etc/passwd");
    let Some(file) = user_list().map_err(failed())? else {
        return Ok("/".to_owned());
    };
    let lines = BufReader::new(file.take(MOST_BYTES)).split(b'\n');
    for line in lines {
        let line = line.map_err(failed())?;
        let text = String::from_utf8_lossy(&line);
        let fields: Vec<&str> = text.trim().split(':').collect();
        if let [name, _, number, _, _, home, ..] = fields.as_slice()
            && (number.parse() == Ok(uid) || *name == uid.to_string())
        {
            return Ok((*home).to_owned());
        }
    }
    Ok("/".to_owned())
}

/// The container's `/etc/passwd` if it is an ordinary file. It is read with all rights, as `runc` does: images have lists that
/// only root may read. So a link to one of the kernel's files, some of which only root may read either, counts as none.
fn user_list() -> io::Result<Option<File>> {
    // It may be anything: opening a pipe must not wait for somebody to write to it.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::NO_MAGICLINKS;
    let Ok(file) = rustix::fs::openat2(CWD, "/etc/passwd", flags, Mode::empty(), resolve) else {
        return Ok(None);
    };
    let system = rustix::fs::fstatfs(&file)?.f_type as u64;
    let kernels = [libc::PROC_SUPER_MAGIC, libc::SYSFS_MAGIC]
        .into_iter()
        .any(|magic| magic as u64 == system);
    let file = File::from(file);
    Ok((!kernels && file.metadata()?.is_file()).then_some(file))
}

/// What to execute. To be called as the user: what counts is what that one may.
pub(super) fn start(process: &Process, environment: Vec<(String, String)>) -> Result<Start> {
    let name = process.args.first().map_or("", String::as_str);
    let path = environment.iter().find(|(name, _)| name == "PATH");
    let program = find(name, path.map_or("", |(_, value)| value))?;
    let texts = |strings: Vec<String>| -> Result<Vec<CString>> {
        let all = strings.into_iter().map(CString::new);
        all.collect::<std::result::Result<_, _>>()
            .map_err(prepare("an argument or variable contains a zero byte"))
    };
    let pairs = environment.into_iter();
    Ok(Start {
        program: CString::new(program)
            .map_err(prepare("the program's name contains a zero byte"))?,
        arguments: texts(process.args.clone())?,
        environment: texts(
            pairs
                .map(|(name, value)| format!("{name}={value}"))
                .collect(),
        )?,
    })
}

/// Where a program is: a name with a slash is a path, another one is looked for.
fn find(name: &str, path: &str) -> Result<String> {
    let failed = |reason: String| InitError::Command(format!("exec: {name:?}: {reason}"));
    if name.contains('/') {
        return match executable(name) {
            Ok(()) => Ok(name.to_owned()),
            // Not the system's, but ours: it is there.
            Err(error) if error.raw_os_error().is_none() => Err(failed(words(&error))),
            Err(error) => Err(failed(format!("stat {name}: {}", words(&error)))),
        };
    }
    for dir in path
        .split(':')
        .filter(|_| !name.is_empty() && !path.is_empty())
    {
        let place = Path::new(if dir.is_empty() { "." } else { dir }).join(name);
        let Some(place) = place.to_str().filter(|place| executable(place).is_ok()) else {
            continue;
        };
        if !place.starts_with('/') {
            let text = "cannot run executable found relative to current directory";
            return Err(failed(text.to_owned()));
        }
        return Ok(place.to_owned());
    }
    Err(failed("executable file not found in $PATH".to_owned()))
}

/// Whether a file is there that somebody may execute. Whether this user may, the kernel says.
fn executable(path: &str) -> io::Result<()> {
    let metadata = std::fs::metadata(path)?;
    if metadata.is_dir() || metadata.mode() & 0o111 == 0 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(())
}
