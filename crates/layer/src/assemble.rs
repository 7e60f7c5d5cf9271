//! Puts the members of a tar together into the entries of a TOC, in the way that applying them one after the other
//! to an empty directory would: later members win, paths go through symbolic links of the same layer.
//!
//! A whiteout acts on lower layers only, wherever it stands (OCI image specification, "Whiteouts"): what the layer
//! itself has at the path stays, and a directory there becomes opaque.

use std::collections::{BTreeMap, HashMap};

use crate::path::{clean, components, file_name, is_within, join, parent};
use crate::{Entry, Kind, Time};

/// As many symbolic links as the kernel follows in one path.
const MAX_SYMLINKS: usize = 40;

/// Why a member cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AssembleError {
    #[error("it lies under something that is not a directory")]
    NotADirectory,
    #[error("its path goes through more than {MAX_SYMLINKS} symbolic links")]
    TooManyLinks,
    #[error("it is a hard link to a directory, to itself or to a removed path")]
    BadLink,
    #[error("it replaces the root directory")]
    Root,
    #[error("it is a hard link to a path of a lower layer that this layer replaces or removes")]
    LinkToReplaced,
}

/// The path with `/` as NUL, whose plain order is that of [`path_cmp`](crate::path::path_cmp).
fn key(path: &[u8]) -> Vec<u8> {
    path.iter()
        .map(|b| if *b == b'/' { 0 } else { *b })
        .collect()
}

/// Collects entries. Links are numbered provisionally until [`Assembler::finish`].
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    entries: BTreeMap<Vec<u8>, Entry>,
    groups: u32,
    /// The parent that was resolved last: as written, and where it really is.
    resolved: Option<(Vec<u8>, Vec<u8>)>,
}

impl Assembler {
    /// Sets what is at `entry.path` (which must be clean).
    pub(crate) fn set(&mut self, mut entry: Entry) -> Result<(), AssembleError> {
        entry.path = self.place(&entry.path)?;
        if entry.path.is_empty() && !matches!(entry.kind, Kind::Directory { .. }) {
            return Err(AssembleError::Root);
        }
        self.put(entry);
        Ok(())
    }

    /// Removes `path` of lower layers.
    pub(crate) fn whiteout(&mut self, path: &[u8]) -> Result<(), AssembleError> {
        let path = self.place(path)?;
        let found = self.get_mut(&path);
        match found.map(|e| &mut e.kind) {
            Some(Kind::Directory { opaque }) => *opaque = true,
            Some(_) => {}
            None => {
                let implied = self.has_children(&path);
                self.put(if implied {
                    implicit_directory(path)
                } else {
                    bare(path, Kind::Whiteout, 0)
                });
            }
        }
        Ok(())
    }

    /// Hides everything that lower layers have under `directory`.
    pub(crate) fn opaque(&mut self, directory: &[u8]) -> Result<(), AssembleError> {
        let path = self.place(directory)?;
        match self.get_mut(&path).map(|e| &mut e.kind) {
            Some(Kind::Directory { opaque }) => *opaque = true,
            Some(Kind::Whiteout) | None => self.put(implicit_directory(path)),
            Some(_) => return Err(AssembleError::NotADirectory),
        }
        Ok(())
    }

    /// Makes `entry.path` a hard link to `target` (both clean). `entry` has the metadata of the link member, which
    /// count only where the target is in a lower layer.
    pub(crate) fn link(&mut self, mut entry: Entry, target: &[u8]) -> Result<(), AssembleError> {
        let target = self.place(target)?;
        entry.path = self.place(&entry.path)?;
        if entry.path == target || target.is_empty() || entry.path.is_empty() {
            return Err(AssembleError::BadLink);
        }
        let next = self.groups + 1;
        match self.get_mut(&target) {
            None => entry.kind = Kind::LinkBelow { target },
            Some(found) => {
                match &mut found.kind {
                    Kind::Directory { .. } | Kind::Whiteout => return Err(AssembleError::BadLink),
                    Kind::File { ino, .. } if *ino == 0 => *ino = next,
                    _ => {}
                }
                entry = Entry {
                    path: entry.path,
                    ..found.clone()
                };
                self.groups = next;
            }
        }
        self.put(entry);
        Ok(())
    }

    /// The entries in order, with canonical link numbers. An error comes with the path of its entry.
    pub(crate) fn finish(self) -> Result<Vec<Entry>, (Vec<u8>, AssembleError)> {
        let replaced =
            |e: &&Entry| matches!(&e.kind, Kind::LinkBelow { target } if self.has(target));
        if let Some(bad) = self.entries.values().find(replaced) {
            return Err((bad.path.clone(), AssembleError::LinkToReplaced));
        }
        let mut entries: Vec<Entry> = self.entries.into_values().collect();
        number_links(&mut entries);
        Ok(entries)
    }

    /// Whether the layer has an entry at exactly this path.
    pub(crate) fn has(&self, path: &[u8]) -> bool {
        self.entries.contains_key(&key(path))
    }

    /// Where `path` really is: its parent with the layer's own symbolic links followed inside the root. A whiteout on
    /// the way becomes an opaque directory.
    fn place(&mut self, path: &[u8]) -> Result<Vec<u8>, AssembleError> {
        let Some(up) = parent(path) else {
            return Ok(Vec::new());
        };
        let known = self.resolved.as_ref().filter(|(written, _)| written == up);
        let real = match known {
            Some((_, real)) => real.clone(),
            None => {
                let real = self.resolve(up)?;
                self.resolved = Some((up.to_vec(), real.clone()));
                real
            }
        };
        Ok(join(&real, file_name(path)))
    }

    fn resolve(&mut self, directory: &[u8]) -> Result<Vec<u8>, AssembleError> {
        let mut at = Vec::new();
        let mut rest: Vec<Vec<u8>> = components(directory).map(<[u8]>::to_vec).collect();
        rest.reverse();
        let mut followed = 0;
        while let Some(name) = rest.pop() {
            let next = clean(&join(&at, &name));
            match self.get_mut(&next).map(|e| &e.kind) {
                None | Some(Kind::Directory { .. }) => at = next,
                Some(Kind::Whiteout) => {
                    self.put(implicit_directory(next.clone()));
                    at = next;
                }
                Some(Kind::Symlink { target }) => {
                    followed += 1;
                    if followed > MAX_SYMLINKS {
                        return Err(AssembleError::TooManyLinks);
                    }
                    rest.extend(
                        components(target)
                            .map(<[u8]>::to_vec)
                            .collect::<Vec<_>>()
                            .into_iter()
                            .rev(),
                    );
                    if target.starts_with(b"/") {
                        at.clear();
                    }
                }
                Some(_) => return Err(AssembleError::NotADirectory),
            }
        }
        Ok(at)
    }

    fn get_mut(&mut self, path: &[u8]) -> Option<&mut Entry> {
        self.entries.get_mut(&key(path))
    }

    /// Puts the entry at its (real) path over what is there.
    fn put(&mut self, mut entry: Entry) {
        let stale = |(written, real): &(Vec<u8>, Vec<u8>)| {
            is_within(written, &entry.path) || is_within(real, &entry.path)
        };
        if self.resolved.as_ref().is_some_and(stale) {
            self.resolved = None;
        }
        let before = self.get_mut(&entry.path).map(|e| e.kind.clone());
        match (&mut entry.kind, before) {
            (Kind::Directory { .. }, None) => {}
            (Kind::Directory { opaque }, Some(Kind::Directory { opaque: was })) => *opaque |= was,
            // Something else was there, so nothing of a lower directory can show through the new one.
            (Kind::Directory { opaque }, Some(_)) => *opaque = true,
            (_, None | Some(Kind::Directory { .. })) => self.remove_children(&entry.path),
            (_, Some(_)) => {}
        }
        self.entries.insert(key(&entry.path), entry);
    }

    /// Whether anything lies under `directory`, which itself has no entry.
    fn has_children(&self, directory: &[u8]) -> bool {
        let mut from = self.entries.range(key(directory)..);
        from.next()
            .is_some_and(|(_, e)| is_within(&e.path, directory))
    }

    fn remove_children(&mut self, directory: &[u8]) {
        let under = self
            .entries
            .range(key(directory)..)
            .take_while(|(_, e)| is_within(&e.path, directory));
        let gone: Vec<Vec<u8>> = under.map(|(key, _)| key.clone()).collect();
        for key in gone {
            self.entries.remove(&key);
        }
    }
}

/// An entry without metadata of its own.
pub(crate) fn bare(path: Vec<u8>, kind: Kind, mode: u32) -> Entry {
    Entry {
        path,
        kind,
        mode,
        uid: 0,
        gid: 0,
        mtime: Time::default(),
        xattrs: BTreeMap::new(),
    }
}

/// An opaque directory that no member describes: 0755, root's, like the directories that extractors make themselves.
fn implicit_directory(path: Vec<u8>) -> Entry {
    bare(path, Kind::Directory { opaque: true }, 0o755)
}

/// Makes link numbers canonical: groups count from 1 in the order of their first path, files with one name have 0.
/// `entries` must be in order; equal non-zero numbers must mean one inode.
pub fn number_links(entries: &mut [Entry]) {
    let mut names: HashMap<u32, u32> = HashMap::new();
    for entry in entries.iter() {
        if let Kind::File { ino, .. } = entry.kind {
            *names.entry(ino).or_default() += 1;
        }
    }
    names.remove(&0);
    names.retain(|_, count| *count > 1);
    let mut numbers: HashMap<u32, u32> = HashMap::new();
    for entry in entries {
        if let Kind::File { ino, .. } = &mut entry.kind {
            let next = numbers.len() as u32 + 1;
            *ino = if names.contains_key(ino) {
                *numbers.entry(*ino).or_insert(next)
            } else {
                0
            };
        }
    }
}
