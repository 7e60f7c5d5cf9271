//! The tree that grows while stats arrive. Pure: (stat) → entry, and whether its content must travel.

use std::collections::{BTreeMap, HashMap};

use buildyard_layer::{Entry, Extent, Kind, NameFiles, Toc};
use buildyard_model::{Digest, FlatId};

use super::SyncLimits;
use super::check::{check, compare};
use crate::go_mode as mode;
use crate::wire::{Stat, time};

/// Files start on boundaries of this many bytes (DESIGN.md, invariant 2).
const BLOCK: u64 = 512;
/// The new pack's place in [`Toc::flats`]: index 0 until it is known whether there is one.
const PACK: u32 = 0;

/// A content that must travel: `id` is its number in the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Number of the path.
    pub(crate) id: u32,
    /// Where its bytes go in the pack.
    pub(crate) offset: u64,
    /// How many bytes there must be.
    pub(crate) size: u64,
}

/// Builds the TOC.
pub(crate) struct Tree<'a> {
    limits: SyncLimits,
    previous: Option<&'a Toc>,
    /// How far the previous tree has been walked: both are sorted.
    cursor: usize,
    entries: Vec<Entry>,
    flats: Vec<FlatId>,
    /// Index in the previous TOC's flats → index in the new one's.
    kept_flats: HashMap<u32, u32>,
    /// Entry of each number whose content travels.
    wanted: HashMap<u32, usize>,
    /// First names of files, for hard links.
    files: HashMap<Vec<u8>, usize>,
    /// The path before, and whether it was a directory.
    last: Option<(Vec<u8>, bool)>,
    next_id: u32,
    pack_length: u64,
}

impl<'a> Tree<'a> {
    pub(crate) fn new(previous: Option<&'a Toc>, limits: SyncLimits) -> Self {
        Self {
            limits,
            previous,
            cursor: 0,
            entries: Vec::new(),
            flats: vec![FlatId::from_bytes([0; 32])],
            kept_flats: HashMap::new(),
            wanted: HashMap::new(),
            files: HashMap::new(),
            last: None,
            next_id: 0,
            pack_length: 0,
        }
    }

    /// Paths so far.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Where the pack ends so far.
    pub(crate) fn pack_length(&self) -> u64 {
        self.pack_length
    }

    /// The path of a number whose content travels.
    pub(crate) fn path(&self, id: u32) -> String {
        let entry = self
            .wanted
            .get(&id)
            .and_then(|index| self.entries.get(*index));
        entry
            .map(|entry| String::from_utf8_lossy(&entry.path).into_owned())
            .unwrap_or_default()
    }

    /// Takes the next stat. Some: its content must travel.
    pub(crate) fn add(&mut self, stat: Stat) -> Result<Option<Wanted>, String> {
        let last = self.last.as_ref();
        check(&stat, last.map(|(path, _)| path.as_slice()), &self.limits)?;
        if let Some((parent, false)) = last
            && lies_beneath(&stat.path, parent)
        {
            return Err(format!(
                "path {:?} lies beneath {:?}, which is no directory",
                String::from_utf8_lossy(&stat.path),
                String::from_utf8_lossy(parent)
            ));
        }
        let id = self.next_id;
        self.next_id = id.checked_add(1).ok_or("too many paths")?;
        if self.entries.len() >= self.limits.entries {
            return Err(format!("more than {} paths", self.limits.entries));
        }
        self.last = Some((stat.path.clone(), stat.mode & mode::TYPE == mode::DIR));
        let Some(kind) = self.kind(&stat)? else {
            return Ok(None);
        };
        let index = self.entries.len();
        let mut entry = entry(stat, kind);
        let wanted = self.place(&mut entry, id, index)?;
        self.entries.push(entry);
        Ok(wanted)
    }

    /// What the path is; `None` for what has no place in a context.
    fn kind(&mut self, stat: &Stat) -> Result<Option<Kind>, String> {
        let device =
            |number: i64| u32::try_from(number).map_err(|_| format!("device number {number}"));
        Ok(Some(match stat.mode & mode::TYPE {
            0 if !stat.linkname.is_empty() => self.hard_link(stat)?,
            0 => {
                let size = u64::try_from(stat.size).map_err(|_| format!("size {}", stat.size))?;
                self.files.insert(stat.path.clone(), self.entries.len());
                Kind::File {
                    size,
                    content: Digest::of(b""),
                    extents: Vec::new(),
                    ino: 0,
                }
            }
            mode::DIR => Kind::Directory { opaque: false },
            mode::SYMLINK => Kind::Symlink {
                target: stat.linkname.clone(),
            },
            mode::NAMED_PIPE => Kind::Fifo,
            mode::DEVICE => Kind::BlockDevice {
                major: device(stat.devmajor)?,
                minor: device(stat.devminor)?,
            },
            kind if kind == mode::DEVICE | mode::CHAR_DEVICE => Kind::CharDevice {
                major: device(stat.devmajor)?,
                minor: device(stat.devminor)?,
            },
            _ => return Ok(None),
        }))
    }

    /// A further name of a file that came before. The content follows when it is known, see [`Tree::finish`].
    fn hard_link(&mut self, stat: &Stat) -> Result<Kind, String> {
        let shown = || {
            (
                String::from_utf8_lossy(&stat.path).into_owned(),
                String::from_utf8_lossy(&stat.linkname),
            )
        };
        let target = stat.linkname.strip_prefix(b"/").unwrap_or(&stat.linkname);
        let first = *self.files.get(target).ok_or_else(|| {
            let (path, target) = shown();
            format!("{path:?} is a hard link to {target:?}, which is no file that came before")
        })?;
        let number = u32::try_from(first + 1).map_err(|_| "too many paths")?;
        let Some(Entry {
            kind: Kind::File { size, ino, .. },
            ..
        }) = self.entries.get_mut(first)
        else {
            return Err("a hard link leads to no file".to_owned());
        };
        *ino = number;
        Ok(Kind::File {
            size: *size,
            content: Digest::of(b""),
            extents: Vec::new(),
            ino: number,
        })
    }

    /// Finds the content in the previous tree, or gives it a place in the pack.
    fn place(
        &mut self,
        entry: &mut Entry,
        id: u32,
        index: usize,
    ) -> Result<Option<Wanted>, String> {
        let unchanged = self.unchanged(entry);
        let Kind::File {
            size,
            content,
            extents,
            ino,
        } = &mut entry.kind
        else {
            return Ok(None);
        };
        if *ino != 0 || *size == 0 {
            return Ok(None);
        }
        if let Some((old_content, old_extents)) = unchanged {
            *content = old_content;
            *extents = old_extents;
            return Ok(None);
        }
        let wanted = Wanted {
            id,
            offset: self.pack_length,
            size: *size,
        };
        self.pack_length = wanted
            .size
            .checked_next_multiple_of(BLOCK)
            .and_then(|room| room.checked_add(wanted.offset))
            .ok_or("sizes overflow")?;
        if self.pack_length > self.limits.bytes {
            return Err(format!("more than {} bytes to transfer", self.limits.bytes));
        }
        extents.push(Extent {
            flat: PACK,
            offset: wanted.offset,
            length: wanted.size,
            at: 0,
        });
        self.wanted.insert(id, index);
        Ok(Some(wanted))
    }

    /// Content and extents of the same path of the previous tree, if nothing about it has changed.
    fn unchanged(&mut self, entry: &Entry) -> Option<(Digest, Vec<Extent>)> {
        let previous = self.previous?;
        let rest = &previous.entries[self.cursor..];
        self.cursor += rest
            .iter()
            .take_while(|old| compare(&old.path, &entry.path).is_lt())
            .count();
        let old = previous
            .entries
            .get(self.cursor)
            .filter(|old| old.path == entry.path)?;
        let (
            Kind::File {
                size,
                content,
                extents,
                ..
            },
            Kind::File { size: new_size, .. },
        ) = (&old.kind, &entry.kind)
        else {
            return None;
        };
        let metadata = |entry: &Entry| (entry.mtime, entry.mode, entry.uid, entry.gid);
        if size != new_size || metadata(old) != metadata(entry) {
            return None;
        }
        let extents = extents
            .iter()
            .map(|extent| self.keep_flat(previous, *extent))
            .collect::<Option<_>>()?;
        Some((*content, extents))
    }

    fn keep_flat(&mut self, previous: &Toc, extent: Extent) -> Option<Extent> {
        let flat = match self.kept_flats.get(&extent.flat) {
            Some(flat) => *flat,
            None => {
                let flat = u32::try_from(self.flats.len()).ok()?;
                self.flats
                    .push(*previous.flats.get(usize::try_from(extent.flat).ok()?)?);
                self.kept_flats.insert(extent.flat, flat);
                flat
            }
        };
        Some(Extent { flat, ..extent })
    }

    /// The TOC, once the contents are there: `digests` by number, `pack` the flat file that holds them.
    pub(crate) fn finish(
        mut self,
        digests: &HashMap<u32, Digest>,
        pack: Option<FlatId>,
    ) -> Result<Toc, String> {
        for (id, index) in &self.wanted {
            let digest = digests.get(id).ok_or("a content never arrived")?;
            if let Kind::File { content, .. } = &mut self.entries[*index].kind {
                *content = *digest;
            }
        }
        copy_to_links(&mut self.entries);
        match pack {
            Some(pack) => self.flats[PACK as usize] = pack,
            None => drop_pack(&mut self.flats, &mut self.entries),
        }
        Ok(Toc {
            entries: self.entries,
            flats: self.flats,
            names: NameFiles::default(),
        })
    }
}

fn lies_beneath(path: &[u8], parent: &[u8]) -> bool {
    path.strip_prefix(parent)
        .is_some_and(|rest| rest.starts_with(b"/"))
}

fn entry(stat: Stat, kind: Kind) -> Entry {
    let keep = |name: &str| {
        !name.starts_with("trusted.overlay.")
            && !name.starts_with("user.overlay.")
            && name != "security.selinux"
    };
    let xattrs: BTreeMap<_, _> = stat
        .xattrs
        .into_iter()
        .filter(|(name, _)| keep(name))
        .map(|(name, value)| (name.into_bytes(), value))
        .collect();
    Entry {
        mode: mode::to_unix(stat.mode),
        uid: stat.uid,
        gid: stat.gid,
        mtime: time(stat.mod_time),
        path: stat.path,
        kind,
        xattrs,
    }
}

/// Gives every further name of a file its first name's content and metadata, and numbers the files from 1 in order.
fn copy_to_links(entries: &mut [Entry]) {
    let mut numbers: HashMap<u32, (u32, usize)> = HashMap::new();
    for index in 0..entries.len() {
        let Kind::File { ino, .. } = &mut entries[index].kind else {
            continue;
        };
        if *ino == 0 {
            continue;
        }
        let next = u32::try_from(numbers.len() + 1).expect("fewer files than entries, which fit");
        let (number, first) = *numbers.entry(*ino).or_insert((next, index));
        *ino = number;
        if first != index {
            let path = std::mem::take(&mut entries[index].path);
            entries[index] = Entry {
                path,
                ..entries[first].clone()
            };
        }
    }
}

/// Takes the empty place of the pack out of the list of flat files.
fn drop_pack(flats: &mut Vec<FlatId>, entries: &mut [Entry]) {
    flats.remove(PACK as usize);
    for entry in entries {
        if let Kind::File { extents, .. } = &mut entry.kind {
            extents.iter_mut().for_each(|extent| extent.flat -= 1);
        }
    }
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
