//! Walking a directory in fsutil's order (parents first, names by their bytes), what is not selected left out.
//!
//! A directory that is not selected itself is sent when something in it is. Sockets are left out. Blocking.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};

use buildyard_layer::{Matched, Patterns};
use rustix::fs::{AtFlags, readlinkat, statat};

use super::super::wire::Stat;
use super::beneath::{is_absence, lossy, names, open_dir, split};
use super::{FileKind, Root, follow, to_go_mode};

/// Deeper directories than this are refused.
const MAX_DEPTH: usize = 512;

/// Why a directory cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// A pattern of the farm's request is malformed.
    #[error("the farm asked with a bad pattern: {0}")]
    Pattern(String),
    /// The file system fails.
    #[error("cannot read {path:?} of the context: {source}")]
    Read {
        /// The path, relative to the root.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Nested too deep.
    #[error("{0:?} of the context lies more than {MAX_DEPTH} directories deep")]
    TooDeep(String),
    /// The receiver is gone.
    #[error("the farm no longer wants the files")]
    Gone,
}

impl From<SendError> for tonic::Status {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Pattern(_) => Self::invalid_argument(error.to_string()),
            SendError::Gone => Self::cancelled(error.to_string()),
            _ => Self::failed_precondition(error.to_string()),
        }
    }
}

/// Which paths of a directory are sent.
#[derive(Debug, Default)]
pub struct Selection {
    include: Option<Patterns>,
    exclude: Option<Patterns>,
}

impl Selection {
    /// Compiles the patterns of a request; `follow` is resolved against the directory.
    ///
    /// # Errors
    /// A malformed pattern; a directory or link that cannot be read.
    pub fn new(
        root: &Root,
        include: &[String],
        exclude: &[String],
        follow: &[String],
    ) -> Result<Self, SendError> {
        let compile = |list: &[String]| {
            Patterns::new(list).map_err(|error| SendError::Pattern(error.to_string()))
        };
        let mut include = include.to_vec();
        if !follow.is_empty() {
            let followed = follow::follow(root, follow).map_err(|source| SendError::Read {
                path: follow.join(", "),
                source,
            })?;
            match followed {
                Some(patterns) => include.extend(patterns.iter().map(|pattern| guarded(pattern))),
                None => include.clear(),
            }
        }
        let include = (!include.is_empty())
            .then(|| compile(&include))
            .transpose()?;
        let exclude = (!exclude.is_empty())
            .then(|| compile(exclude))
            .transpose()?;
        Ok(Self { include, exclude })
    }
}

/// A path that begins with `!` would be read as an exception.
fn guarded(pattern: &str) -> String {
    if pattern.starts_with('!') {
        format!("\\{pattern}")
    } else {
        pattern.to_owned()
    }
}

/// Calls `emit` for each selected path, in order.
///
/// # Errors
/// What [`SendError`] lists, and what `emit` returns.
pub fn walk(
    root: &Root,
    selection: &Selection,
    emit: &mut dyn FnMut(Stat) -> Result<(), SendError>,
) -> Result<(), SendError> {
    let mut walker = Walker {
        selection,
        emit,
        first_of_inode: HashMap::new(),
        pending: Vec::new(),
    };
    let dir = root.dir(b"").map_err(|source| SendError::Read {
        path: ".".into(),
        source,
    })?;
    walker.dir(
        dir.as_fd(),
        b"",
        0,
        &Matched::default(),
        &Matched::default(),
    )
}

struct Walker<'a> {
    selection: &'a Selection,
    emit: &'a mut dyn FnMut(Stat) -> Result<(), SendError>,
    first_of_inode: HashMap<(u64, u64), Vec<u8>>,
    /// Directories above the current path that were not sent yet.
    pending: Vec<Stat>,
}

/// What the patterns say about one path.
struct Verdict {
    selected: bool,
    descend: bool,
    include: Matched,
    exclude: Matched,
}

impl Walker<'_> {
    fn dir(
        &mut self,
        dir: BorrowedFd<'_>,
        path: &[u8],
        depth: usize,
        include: &Matched,
        exclude: &Matched,
    ) -> Result<(), SendError> {
        if depth > MAX_DEPTH {
            return Err(SendError::TooDeep(lossy(path)));
        }
        let read = |source| SendError::Read {
            path: lossy(if path.is_empty() { b"." } else { path }),
            source,
        };
        for name in names(dir).map_err(read)? {
            let child = [path, name.to_bytes()].join(&b"/"[usize::from(path.is_empty())..]);
            let verdict = self.verdict(&child, include, exclude);
            if verdict.selected || verdict.descend {
                self.entry(dir, &child, depth, &verdict)?;
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        dir: BorrowedFd<'_>,
        path: &[u8],
        depth: usize,
        verdict: &Verdict,
    ) -> Result<(), SendError> {
        let (_, name) = split(path);
        let read = |source: std::io::Error| SendError::Read {
            path: lossy(path),
            source,
        };
        let found = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => found,
            // Gone since the directory was listed.
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            Err(error) => return Err(read(error.into())),
        };
        let kind = FileKind::of(to_go_mode(found.st_mode));
        if kind == FileKind::Directory {
            return self.subdirectory(dir, name, path, depth, verdict, &found);
        }
        if !verdict.selected || kind == FileKind::Other {
            return Ok(());
        }
        let mut stat = stat_message(path, &found);
        match kind {
            FileKind::Symlink => {
                let target =
                    readlinkat(dir, name, Vec::new()).map_err(|error| read(error.into()))?;
                stat.linkname = target.into_bytes();
            }
            FileKind::CharDevice | FileKind::BlockDevice => {
                stat.devmajor = rustix::fs::major(found.st_rdev).into();
                stat.devminor = rustix::fs::minor(found.st_rdev).into();
            }
            _ => {}
        }
        if found.st_nlink > 1 {
            self.hard_link(&mut stat, (found.st_dev, found.st_ino));
        }
        self.send(stat)
    }

    fn subdirectory(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        depth: usize,
        verdict: &Verdict,
        found: &rustix::fs::Stat,
    ) -> Result<(), SendError> {
        let read = |source| SendError::Read {
            path: lossy(path),
            source,
        };
        let waiting = self.pending.len();
        if verdict.selected {
            self.send(stat_message(path, found))?;
        } else {
            self.pending.push(stat_message(path, found));
        }
        if verdict.descend {
            match open_dir(dir, name) {
                Ok(child) => self.dir(
                    child.as_fd(),
                    path,
                    depth + 1,
                    &verdict.include,
                    &verdict.exclude,
                )?,
                Err(error) if is_absence(&error) => {}
                Err(error)
                    if !verdict.selected
                        && error.kind() == std::io::ErrorKind::PermissionDenied => {}
                Err(error) => return Err(read(error)),
            }
        }
        self.pending.truncate(waiting);
        Ok(())
    }

    /// The second and later names of a file become links to the first one sent.
    fn hard_link(&mut self, stat: &mut Stat, inode: (u64, u64)) {
        match self.first_of_inode.get(&inode) {
            Some(first) if FileKind::of(stat.mode) == FileKind::Regular => {
                stat.linkname.clone_from(first);
                stat.size = 0;
            }
            Some(_) => {}
            None => drop(self.first_of_inode.insert(inode, stat.path.clone())),
        }
    }

    fn send(&mut self, stat: Stat) -> Result<(), SendError> {
        for above in std::mem::take(&mut self.pending) {
            (self.emit)(above)?;
        }
        (self.emit)(stat)
    }

    fn verdict(&self, path: &[u8], include: &Matched, exclude: &Matched) -> Verdict {
        let mut verdict = Verdict {
            selected: true,
            descend: true,
            include: Matched::default(),
            exclude: Matched::default(),
        };
        if let Some(patterns) = &self.selection.include {
            (verdict.selected, verdict.include) = patterns.matches_in(path, include);
            verdict.descend = verdict.selected || patterns.may_match_beneath(path);
        }
        if let Some(patterns) = &self.selection.exclude {
            let (excluded, matched) = patterns.matches_in(path, exclude);
            verdict.exclude = matched;
            verdict.selected &= !excluded;
            verdict.descend &= !excluded || patterns.may_except_beneath(path);
        }
        verdict
    }
}

fn stat_message(path: &[u8], found: &rustix::fs::Stat) -> Stat {
    let mode = to_go_mode(found.st_mode);
    let size = if FileKind::of(mode) == FileKind::Regular {
        found.st_size
    } else {
        0
    };
    let mod_time = found
        .st_mtime
        .saturating_mul(1_000_000_000)
        .saturating_add(i64::try_from(found.st_mtime_nsec).unwrap_or(0));
    Stat {
        path: path.to_owned(),
        mode,
        size,
        mod_time,
        ..Stat::default()
    }
}
