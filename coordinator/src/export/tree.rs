//! The trees of several platforms as one: each in a directory of its own, or laid over each other.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};
use std::sync::Arc;

use async_trait::async_trait;
use buildyard_layer::{
    Entry, ExtentSource, FileReader, Kind, Time, Toc, number_links, path, path_cmp,
};
use buildyard_model::FlatId;
use buildyard_session::{DirEntry, DirKind, DirSource};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::StreamReader;

use super::ExportError;

/// Bytes of a file in one piece.
const PIECE: usize = 256 << 10;

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
    toc: Arc<Toc>,
    /// Where each flat file's bytes are.
    sources: Arc<HashMap<FlatId, Arc<dyn ExtentSource>>>,
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
        let sources = Arc::new(sources.collect());
        let mut toc = combined.finish();
        if let Some(seconds) = epoch {
            toc.entries
                .iter_mut()
                .for_each(|entry| entry.mtime = Time { seconds, nanos: 0 });
        }
        let toc = Arc::new(toc);
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

    fn dir_entry(&self, index: usize) -> Option<DirEntry> {
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
            // A merged tree has neither.
            Kind::Whiteout | Kind::LinkBelow { .. } => return None,
        };
        let (path, xattrs) = (entry.path.clone(), entry.xattrs.clone());
        Some(DirEntry {
            path,
            kind,
            mode: entry.mode,
            mtime: entry.mtime,
            xattrs,
        })
    }
}

impl ExtentSource for Tree {
    fn read_at(&self, flat: FlatId, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        Bytewise(self.sources.clone()).read_at(flat, offset, buf)
    }
}

/// Reads each flat file where it is.
struct Bytewise(Arc<HashMap<FlatId, Arc<dyn ExtentSource>>>);

impl ExtentSource for Bytewise {
    fn read_at(&self, flat: FlatId, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        match self.0.get(&flat) {
            Some(source) => source.read_at(flat, offset, buf),
            None => Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("no flat file {flat} in this result"),
            )),
        }
    }
}

#[async_trait]
impl DirSource for Tree {
    /// Every path but the root, which is the client's own directory.
    fn entries(&self) -> BoxStream<'_, io::Result<DirEntry>> {
        let paths =
            (0..self.toc.entries.len()).filter(|index| !self.toc.entries[*index].path.is_empty());
        stream::iter(paths.filter_map(|index| self.dir_entry(index)).map(Ok)).boxed()
    }

    async fn open(&self, path: &[u8]) -> io::Result<buildyard_session::FileReader> {
        let found = self
            .toc
            .entries
            .binary_search_by(|entry| path_cmp(&entry.path, path));
        let index = found.map_err(|_| io::Error::from(io::ErrorKind::NotFound))?;
        let (toc, sources) = (self.toc.clone(), Bytewise(self.sources.clone()));
        let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(2);
        // Ends when the reader is dropped: then sending fails.
        tokio::task::spawn_blocking(move || {
            if let Err(error) = read_file(&toc, index, &sources, &sender) {
                // Nobody to tell: who has stopped reading doesn't want to know.
                let _ = sender.blocking_send(Err(error));
            }
        });
        Ok(Box::new(StreamReader::new(ReceiverStream::new(receiver))))
    }
}

/// Sends a file's bytes, until its end or until nobody receives.
fn read_file(
    toc: &Toc,
    index: usize,
    source: &dyn ExtentSource,
    sender: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    let file = FileReader::of_entry(source, toc, &toc.entries[index]);
    let mut file =
        file.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))?;
    loop {
        let mut piece = vec![0; PIECE];
        let read = file.read(&mut piece)?;
        piece.truncate(read);
        if read == 0 || sender.blocking_send(Ok(piece.into())).is_err() {
            return Ok(());
        }
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
