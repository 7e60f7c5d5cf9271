//! Copying from a tree.
//!
//! What existing directories get is fsutil's rule: the destination of a copied directory keeps its metadata if it was
//! there, but for its time; directories within get the source's; parents that have to be made are 0755, or have the octal
//! mode of the copies (fsutil pull request 228), under BuildKit's usual mask.

use std::collections::HashMap;

use super::chmod::UMASK;
use super::{FileOpError, ModeChange, Owner, ReadSmall};
use crate::draft::{Draft, name_file};
use crate::names::MAX_NAME_FILE;
use crate::path;
use crate::resolve::Follow;
use crate::source::{CopySource, Role, Seen, SourceMatch};
use crate::tree::{Inode, Node, Tree};
use crate::{Entry, Kind, Time};

/// BuildKit's `FileActionCopy`, without what the caller does itself: resolving owners' names, recognising archives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CopyAction {
    /// What is copied.
    pub source: CopySource,
    /// Where to. With a trailing slash, or where a directory is, copies go into it.
    pub dest: String,
    /// Owner of all copies and of parents that are made; else the source's, and root for parents.
    pub chown: Option<Owner>,
    /// What becomes of the mode of all copies but symbolic links, and of parents that are made.
    pub mode: Option<ModeChange>,
    /// Whether a directory's contents are copied, not the directory itself.
    pub dir_copy_contents: bool,
    /// Whether missing parents of the destination are made; without it they are an error.
    pub create_dest_path: bool,
    /// Modification time of all copies; the source's if none (BuildKit's -1).
    pub timestamp: Option<Time>,
    /// Whether a copy replaces what is in its way even if it is of another kind.
    pub always_replace: bool,
}

impl Draft<'_> {
    /// Copies everything that the source stands for.
    ///
    /// # Errors
    ///
    /// The source is missing, or the destination is of the wrong kind.
    pub fn copy(
        &mut self,
        source: &Tree,
        action: &CopyAction,
        read: &mut ReadSmall<'_>,
    ) -> Result<(), FileOpError> {
        for found in self.copy_matches(source, action)? {
            self.copy_match(source, action, &found, read)?;
        }
        Ok(())
    }

    /// The paths that a copy would take, one by one, after checking the destination: for a caller that unpacks some of them
    /// and copies the others.
    ///
    /// # Errors
    ///
    /// The source or the destination's parent is missing.
    pub fn copy_matches(
        &self,
        source: &Tree,
        action: &CopyAction,
    ) -> Result<Vec<SourceMatch>, FileOpError> {
        if !action.create_dest_path {
            let dest = self.resolve(action.dest.as_bytes(), Follow::All)?;
            let parent = path::parent(&dest).unwrap_or_default();
            if self.get(parent).is_none() {
                return Err(FileOpError::NotFound {
                    operation: "failed to stat",
                    path: action.dest.clone(),
                });
            }
        }
        let matches = action.source.matches(source)?;
        action
            .source
            .check_required(source, &matches, &action.source.filter()?)?;
        Ok(matches)
    }

    /// Copies one of the paths that the source stands for.
    ///
    /// # Errors
    ///
    /// The destination is of the wrong kind.
    pub fn copy_match(
        &mut self,
        source: &Tree,
        action: &CopyAction,
        found: &SourceMatch,
        read: &mut ReadSmall<'_>,
    ) -> Result<(), FileOpError> {
        let filter = action.source.filter()?;
        let node = source.get(&found.path);
        let is_directory = node.as_ref().is_some_and(|node| node.is_directory());
        let top = self.prepare(action, &found.name, is_directory)?;
        // The root is in no layer, whatever becomes of its time.
        if let Some(node) = node.filter(|node| is_directory && !node.implied && !top.is_empty()) {
            self.set_time(&top, action.timestamp.unwrap_or(node.entry.mtime));
        }
        let mut inodes = HashMap::new();
        filter.visit(source, &found.path, |seen| {
            let target = path::join(&top, seen.relative);
            self.copy_one(action, &seen, target.clone(), &mut inodes)?;
            self.keep_names(source, seen.node, &target, read)
        })
    }

    /// The directory that another one's contents are copied into gets that one's time.
    fn set_time(&mut self, path: &[u8], mtime: Time) {
        if let Some(there) = self.get(path) {
            let mut entry = there.clone();
            entry.path = path.to_vec();
            entry.mtime = mtime;
            self.set(entry, 0);
        }
    }

    /// Makes what the destination lacks, and says where the source itself goes.
    fn prepare(
        &mut self,
        action: &CopyAction,
        name: &[u8],
        is_directory: bool,
    ) -> Result<Vec<u8>, FileOpError> {
        let (owner, time) = (action.chown, action.timestamp);
        let mode = action.mode.as_ref().map_or(0o755, of_made_directory);
        let clean = path::clean(action.dest.as_bytes());
        let into = action.dest.ends_with('/') || action.dest.ends_with("/.");
        let ensured = if into {
            &clean
        } else {
            path::parent(&clean).unwrap_or_default()
        };
        let ensured = self.resolve(ensured, Follow::All)?;
        self.mkdir_all(&ensured, mode, owner, time)?;

        let mut dest = self.resolve(&clean, Follow::All)?;
        let exists = self.get(&dest).is_some();
        if is_directory && action.dir_copy_contents && !exists {
            self.mkdir_all(&dest, mode, owner, time)?;
            return Ok(dest);
        }
        let joins = if is_directory {
            exists && !action.dir_copy_contents
        } else {
            self.is_directory(&dest)
        };
        if joins {
            dest = path::join(&dest, name);
        }
        self.mkdir_all(path::parent(&dest).unwrap_or_default(), mode, owner, time)?;
        Ok(dest)
    }

    fn copy_one(
        &mut self,
        action: &CopyAction,
        seen: &Seen<'_, '_>,
        target: Vec<u8>,
        inodes: &mut HashMap<Inode, u64>,
    ) -> Result<(), FileOpError> {
        if action.always_replace && seen.role != Role::Parent {
            let (source, there) = (seen.node.is_directory(), self.is_directory(&target));
            if self.get(&target).is_some() && !(source && there) {
                self.remove(&target);
            }
        }
        if seen.node.is_directory() {
            return self.copy_directory(action, seen, target);
        }
        if self.is_directory(&target) {
            return Err(FileOpError::FileOntoDirectory {
                path: path::display(&target),
            });
        }
        let inode = match inodes.get(&seen.node.inode) {
            Some(inode) => *inode,
            None => self.new_inode(),
        };
        inodes.insert(seen.node.inode, inode);
        let entry = self.copied(action, seen.node, target);
        self.set(entry, inode);
        Ok(())
    }

    fn copy_directory(
        &mut self,
        action: &CopyAction,
        seen: &Seen<'_, '_>,
        target: Vec<u8>,
    ) -> Result<(), FileOpError> {
        let mut entry = self.copied(action, seen.node, target);
        if let Some(there) = self.get(&entry.path) {
            if !matches!(there.kind, Kind::Directory { .. }) {
                return Err(FileOpError::DirectoryOntoFile {
                    path: path::display(&entry.path),
                });
            }
            let kept = Entry {
                path: entry.path.clone(),
                ..there.clone()
            };
            entry = match seen.role {
                Role::Top => return Ok(()),
                Role::Parent => Entry {
                    mode: seen.node.entry.mode,
                    ..kept
                },
                Role::Included => {
                    let mut xattrs = kept.xattrs;
                    xattrs.extend(entry.xattrs);
                    Entry { xattrs, ..entry }
                }
            };
        }
        self.set(entry, 0);
        Ok(())
    }

    /// The copy of a node with the owner, mode and time that the action gives it.
    fn copied(&mut self, action: &CopyAction, node: &Node<'_>, target: Vec<u8>) -> Entry {
        let mut entry = self.flats.adopt(node);
        entry.path = target;
        if let Some(Owner { uid, gid }) = action.chown {
            (entry.uid, entry.gid) = (uid, gid);
        }
        if let Some(mode) = &action.mode
            && !matches!(entry.kind, Kind::Symlink { .. })
        {
            entry.mode = mode.apply(entry.mode, node.is_directory());
        }
        entry.mtime = action.timestamp.unwrap_or(entry.mtime);
        entry
    }

    /// Keeps the bytes of a name file that was just copied to `target`.
    pub(super) fn keep_names(
        &mut self,
        source: &Tree,
        node: &Node<'_>,
        target: &[u8],
        read: &mut ReadSmall<'_>,
    ) -> Result<(), FileOpError> {
        let Kind::File { size, .. } = node.entry.kind else {
            return Ok(());
        };
        let Some(kept) = name_file(&mut self.names, target) else {
            return Ok(());
        };
        let mut known = source.names();
        let carried = name_file(&mut known, node.path).and_then(Option::take);
        *kept = match carried {
            Some(bytes) => Some(bytes),
            None if size > MAX_NAME_FILE => None,
            None => Some(read(node).map_err(|source| FileOpError::Names {
                path: path::display(node.path),
                source,
            })?),
        };
        Ok(())
    }
}

/// The mode of directories that are made on the way, where copies get one.
fn of_made_directory(of_copies: &ModeChange) -> u32 {
    match of_copies {
        ModeChange::Octal(mode) => mode & 0o777 & !UMASK,
        ModeChange::Symbolic(_) => 0o755,
    }
}
