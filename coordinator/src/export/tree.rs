//! The trees of several platforms as one: each in a directory of its own, or laid over each other.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};
use std::sync::Arc;

use buildyard_layer::{Entry, ExtentSource, FileReader, Kind, Time, Toc, number_links, path};
use buildyard_model::FlatId;
use buildyard_session::{DirEntry, DirKind, DirSource};

use super::ExportError;

/// One platform's tree, merged.
pub(super) struct Part {
    /// The platform, for messages.
    pub(super) name: String,
    /// Where its files go; empty for the top.
    pub(super) directory: String,
    pub(super) toc: Arc<Toc>,
    pub(super) source: Arc<dyn ExtentSource>,
}

/// A tree to send.
pub(super) struct Tree {
    toc: Toc,
    /// Where each flat file's bytes are.
    sources: HashMap<FlatId, Arc<dyn ExtentSource>>,
    /// The first path of each hard-link group.
    first_names: HashMap<u32, usize>,
}

impl Tree {
    /// Puts the parts together. Where they go to one directory they may share directories, but no other path.
    /// With `epoch` (Unix seconds) every path gets that time.
    pub(super) fn combine(parts: Vec<Part>, epoch: Option<i64>) -> Result<Self, ExportError> {
        let mut combined = Combined::default();
        for part in &parts {
            combined.add(part)?;
        }
        combined.add_missing_directories();
        let sources = parts.iter().flat_map(|part| {
            part.toc
                .flats
                .iter()
                .map(|flat| (*flat, part.source.clone()))
        });
        let sources = sources.collect();
        let mut toc = combined.finish();
        if let Some(seconds) = epoch {
            toc.entries
                .iter_mut()
                .for_each(|entry| entry.mtime = Time { seconds, nanos: 0 });
        }
        let mut first_names = HashMap::new();
        for (index, entry) in toc.entries.iter().enumerate() {
            if let Kind::File { ino, .. } = entry.kind {
                first_names.entry(ino).or_insert(index);
            }
        }
        first_names.remove(&0);
        Ok(Self {
            toc,
            sources,
            first_names,
        })
    }

    pub(super) fn toc(&self) -> &Toc {
        &self.toc
    }

    /// How many entries are the root: one or none, and it comes first.
    fn root(&self) -> usize {
        let first = self.toc.entries.first();
        usize::from(first.is_some_and(|entry| entry.path.is_empty()))
    }

    fn dir_entry(&self, index: usize) -> DirEntry {
        let entry = &self.toc.entries[index];
        let kind = match &entry.kind {
            Kind::File { size, ino, .. } => {
                match self.first_names.get(ino).filter(|first| **first != index) {
                    Some(first) => DirKind::HardLink(self.toc.entries[*first].path.clone()),
                    None => DirKind::File(*size),
                }
            }
            Kind::Directory { .. } => DirKind::Directory,
            Kind::Symlink { target } => DirKind::Symlink(target.clone()),
            Kind::Fifo => DirKind::Fifo,
            Kind::CharDevice { major, minor } => DirKind::Device {
                block: false,
                major: *major,
                minor: *minor,
            },
            Kind::BlockDevice { major, minor } => DirKind::Device {
                block: true,
                major: *major,
                minor: *minor,
            },
            Kind::Whiteout | Kind::LinkBelow { .. } => {
                unreachable!("neither is taken into a combined tree")
            }
        };
        let (path, xattrs) = (entry.path.clone(), entry.xattrs.clone());
        DirEntry {
            path,
            kind,
            mode: entry.mode,
            mtime: entry.mtime,
            xattrs,
        }
    }
}

/// Reads each flat file where it is.
impl ExtentSource for Tree {
    fn read_at(&self, flat: FlatId, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        match self.sources.get(&flat) {
            Some(source) => source.read_at(flat, offset, buf),
            None => Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("no flat file {flat} in this result"),
            )),
        }
    }
}

/// Every path but the root, which is the client's own directory.
impl DirSource for Tree {
    fn paths(&self) -> usize {
        self.toc.entries.len() - self.root()
    }

    fn entry(&self, number: usize) -> DirEntry {
        self.dir_entry(number + self.root())
    }

    fn open(&self, number: usize) -> io::Result<Box<dyn Read + '_>> {
        let entry = &self.toc.entries[number + self.root()];
        let file = FileReader::of_entry(self, &self.toc, entry);
        let file =
            file.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))?;
        Ok(Box::new(file))
    }
}

/// Entries as they come together. The key is the path with `/` as NUL, whose plain order is a TOC's.
#[derive(Default)]
struct Combined {
    entries: BTreeMap<Vec<u8>, (Entry, String)>,
    flats: Vec<FlatId>,
    links: u32,
}

impl Combined {
    fn add(&mut self, part: &Part) -> Result<(), ExportError> {
        let first_flat = self.flats.len() as u32;
        let first_link = self.links;
        self.flats.extend(&part.toc.flats);
        if !part.directory.is_empty() {
            self.put(plain_directory(part.directory.as_bytes()), &part.name)?;
        }
        for entry in &part.toc.entries {
            if matches!(entry.kind, Kind::Whiteout | Kind::LinkBelow { .. }) {
                continue;
            }
            let mut entry = entry.clone();
            entry.path = if entry.path.is_empty() {
                part.directory.clone().into_bytes()
            } else {
                path::join(part.directory.as_bytes(), &entry.path)
            };
            if let Kind::File { extents, ino, .. } = &mut entry.kind {
                extents
                    .iter_mut()
                    .for_each(|extent| extent.flat += first_flat);
                if *ino != 0 {
                    *ino += first_link;
                    self.links = self.links.max(*ino);
                }
            }
            self.put(entry, &part.name)?;
        }
        Ok(())
    }

    fn put(&mut self, entry: Entry, name: &str) -> Result<(), ExportError> {
        let directory = |entry: &Entry| matches!(entry.kind, Kind::Directory { .. });
        let shown = String::from_utf8_lossy(&entry.path).into_owned();
        let key = key(&entry.path);
        let is_directory = directory(&entry);
        match self.entries.insert(key, (entry, name.to_owned())) {
            Some((before, other)) if !(is_directory && directory(&before)) => {
                Err(ExportError::Refused(format!(
                    "cannot overwrite {shown} from {other} with {name} when split option is disabled"
                )))
            }
            _ => Ok(()),
        }
    }

    /// Parents that nobody lists, as extractors make them.
    fn add_missing_directories(&mut self) {
        let mut missing = BTreeMap::new();
        for (entry, name) in self.entries.values() {
            let mut at = path::parent(&entry.path);
            while let Some(directory) = at.filter(|directory| !directory.is_empty()) {
                let key = key(directory);
                if self.entries.contains_key(&key) || missing.contains_key(&key) {
                    break;
                }
                missing.insert(key, (plain_directory(directory), name.clone()));
                at = path::parent(directory);
            }
        }
        self.entries.extend(missing);
    }

    fn finish(self) -> Toc {
        let mut entries: Vec<Entry> = self.entries.into_values().map(|(entry, _)| entry).collect();
        number_links(&mut entries);
        Toc {
            entries,
            flats: self.flats,
            ..Toc::default()
        }
    }
}

fn key(path: &[u8]) -> Vec<u8> {
    path.iter()
        .map(|byte| if *byte == b'/' { 0 } else { *byte })
        .collect()
}

fn plain_directory(path: &[u8]) -> Entry {
    Entry {
        path: path.to_vec(),
        kind: Kind::Directory { opaque: false },
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: Time::default(),
        xattrs: BTreeMap::new(),
    }
}
