//! BuildKit's file operation on TOCs: copy, mkfile, mkdir, rm, symlink, and unpacking for ADD.
//!
//! The outcome is that of BuildKit's `solver/llbsolver/file` and fsutil's `copy` on a mounted file system, without one: no
//! mount, no root, no bytes moved. What happens to existing directories, links in paths, hard links and errors follows
//! them; the texts of errors are theirs where clients show them. Names of owners are resolved by the caller
//! (see [`names`](crate::names)), and archives are read by the caller.

mod chmod;
mod copy;
mod make;
mod remove;
mod unpack;

use std::io;

use crate::path;
use crate::resolve::{Follow, ResolveError};
use crate::source::SelectError;
use crate::tree::{Node, Tree};
use crate::{Draft, Entry, Kind, Time, Toc};

pub use chmod::{BadMode, ModeChange};
pub use copy::CopyAction;
pub use make::{Content, MkdirAction, MkfileAction, SymlinkAction};
pub use remove::RmAction;
pub use unpack::UnpackAction;

/// Who owns what a step makes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// One action of a file operation.
#[derive(Debug)]
pub enum FileStep<'a> {
    /// Copies from a tree.
    Copy(&'a Tree, CopyAction),
    /// Unpacks an archive that the caller read into a tree.
    Unpack(&'a Tree, UnpackAction),
    /// Writes a file.
    Mkfile(MkfileAction),
    /// Makes a directory.
    Mkdir(MkdirAction),
    /// Removes paths.
    Rm(RmAction),
    /// Makes a symbolic link.
    Symlink(SymlinkAction),
}

/// Reads a small file of a source tree; needed only where `etc/passwd` or `etc/group` is copied from another path.
pub type ReadSmall<'r> = dyn FnMut(&Node<'_>) -> io::Result<Vec<u8>> + 'r;

/// Why a file step fails.
#[derive(Debug, thiserror::Error)]
pub enum FileOpError {
    /// The source cannot be selected; a missing one is [`SelectError::NotFound`].
    #[error(transparent)]
    Select(#[from] SelectError),
    /// A path leads through too many links or through a file.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// A path does not exist.
    #[error("{operation} {path}: no such file or directory")]
    NotFound {
        /// The system call that a program would have made.
        operation: &'static str,
        /// The path.
        path: String,
    },
    /// Something else is where a directory is needed.
    #[error("{operation} {path}: not a directory")]
    NotADirectory {
        /// The system call that a program would have made.
        operation: &'static str,
        /// The path.
        path: String,
    },
    /// A directory is where a file would be written.
    #[error("{operation} {path}: is a directory")]
    IsADirectory {
        /// The system call that a program would have made.
        operation: &'static str,
        /// The path.
        path: String,
    },
    /// The path of a new symbolic link is taken.
    #[error("symlink {target} {path}: file exists")]
    Exists {
        /// What the link would point to.
        target: String,
        /// The path.
        path: String,
    },
    /// A file is copied onto a directory.
    #[error("cannot replace to directory {path} with file")]
    FileOntoDirectory {
        /// The destination.
        path: String,
    },
    /// A directory is copied onto something else.
    #[error("cannot copy to non-directory: {path}")]
    DirectoryOntoFile {
        /// The destination.
        path: String,
    },
    /// The root cannot be removed.
    #[error("rmPath: invalid empty path")]
    RemoveRoot,
    /// The bytes of a name file could not be read.
    #[error("reading {path} to look up users and groups in it")]
    Names {
        /// The path in the source.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// Runs the steps one after the other over `base` and gives the layer that they make. `now` is the modification time of what
/// has no other.
///
/// # Errors
///
/// The first error, with the index of the step.
pub fn apply(
    base: &Tree,
    steps: &[FileStep<'_>],
    now: Time,
    read: &mut ReadSmall<'_>,
) -> Result<Toc, (usize, FileOpError)> {
    let mut draft = Draft::new(base, now);
    for (index, step) in steps.iter().enumerate() {
        draft.step(step, read).map_err(|error| (index, error))?;
    }
    Ok(draft.finish())
}

impl Draft<'_> {
    /// Runs one step.
    ///
    /// # Errors
    ///
    /// What BuildKit would refuse too.
    pub fn step(
        &mut self,
        step: &FileStep<'_>,
        read: &mut ReadSmall<'_>,
    ) -> Result<(), FileOpError> {
        match step {
            FileStep::Copy(source, action) => self.copy(source, action, read),
            FileStep::Unpack(archive, action) => self.unpack(archive, action, read),
            FileStep::Mkfile(action) => self.mkfile(action),
            FileStep::Mkdir(action) => self.mkdir(action),
            FileStep::Rm(action) => self.rm(action),
            FileStep::Symlink(action) => self.symlink(action),
        }
    }

    /// Makes a directory and the parents it lacks, all alike. The path is resolved.
    fn mkdir_all(
        &mut self,
        path: &[u8],
        mode: u32,
        owner: Option<Owner>,
        time: Option<Time>,
    ) -> Result<(), FileOpError> {
        let dirs: Vec<Vec<u8>> = crate::tree::ancestors(path)
            .chain([path])
            .map(<[u8]>::to_vec)
            .collect();
        for dir in dirs {
            match self.get(&dir).map(|entry| &entry.kind) {
                Some(Kind::Directory { .. }) => {}
                Some(_) => {
                    return Err(FileOpError::NotADirectory {
                        operation: "mkdir",
                        path: path::display(&dir),
                    });
                }
                None => self.make(&dir, Kind::Directory { opaque: false }, mode, owner, time),
            }
        }
        Ok(())
    }

    /// Puts something new at a path whose parent is a directory. As on Linux, without an owner the group comes from a parent
    /// with the set-group-id bit, which new directories inherit too.
    fn make(
        &mut self,
        path: &[u8],
        kind: Kind,
        mode: u32,
        owner: Option<Owner>,
        time: Option<Time>,
    ) {
        let above = path::parent(path).and_then(|parent| self.get(parent));
        let group = above
            .filter(|entry| entry.mode & 0o2000 != 0)
            .map(|entry| entry.gid);
        let is_directory = matches!(kind, Kind::Directory { .. });
        let inherited = if group.is_some() && is_directory {
            0o2000
        } else {
            0
        };
        let Owner { uid, gid } = owner.unwrap_or(Owner {
            uid: 0,
            gid: group.unwrap_or(0),
        });
        let entry = Entry {
            path: path.to_vec(),
            kind,
            mode: mode | inherited,
            uid,
            gid,
            mtime: time.unwrap_or(self.now),
            xattrs: Default::default(),
        };
        let inode = self.new_inode();
        self.set(entry, inode);
    }

    /// The path with all links followed, checked to have a directory above it.
    fn resolve_new(&self, operation: &'static str, given: &str) -> Result<Vec<u8>, FileOpError> {
        let path = self.resolve(given.as_bytes(), Follow::All)?;
        match path::parent(&path) {
            Some(parent) if !self.is_directory(parent) => Err(FileOpError::NotFound {
                operation,
                path: path::display(&path),
            }),
            _ => Ok(path),
        }
    }
}
