//! Reads and hashes the files, on several threads, into one flat file.
//!
//! A file that may be the one below is hashed first and written only where it differs; all others are read once.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use buildyard_model::Digest;
use sha2::{Digest as _, Sha256};

use super::diff::may_be_equal;
use super::walk::{Found, What};
use super::{CaptureError, read_error};
use crate::beneath::open_file;
use crate::path::show;
use crate::{Appended, FlatWriter, Kind, Tree};

/// The kind of every regular file, by its index in `found`. Names of one inode get one provisional link number.
pub(super) fn read(
    root: &OwnedFd,
    found: &[Found],
    lower: &Tree,
    writer: &FlatWriter,
    threads: usize,
) -> Result<HashMap<usize, Kind>, CaptureError> {
    let inodes = inodes(found);
    let done = Mutex::new(HashMap::with_capacity(found.len()));
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let work = || -> Result<(), CaptureError> {
        let mut buffer = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let Some(names) = inodes.get(next.fetch_add(1, Ordering::Relaxed)) else {
                break;
            };
            let read = read_one(root, &found[names[0]], lower, writer, &mut buffer);
            let file = read.inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            done.extend(names.iter().map(|i| (*i, kind(&file, names))));
        }
        Ok(())
    };
    let threads = threads.min(64).min(inodes.len());
    std::thread::scope(|scope| {
        // This thread is one of them: a few small files are read sooner than a thread is started.
        let threads: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let here = work();
        let ended = threads
            .into_iter()
            .map(|t| t.join().expect("reading files does not panic"));
        ended.fold(here, Result::and)
    })?;
    Ok(done.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// The files, as lists of the names of one inode.
fn inodes(found: &[Found]) -> Vec<Vec<usize>> {
    let mut lists: Vec<Vec<usize>> = Vec::new();
    let mut linked: HashMap<u64, usize> = HashMap::new();
    for (i, one) in found.iter().enumerate() {
        match one.what {
            What::File {
                linked: true,
                inode,
                ..
            } => {
                let at = *linked.entry(inode).or_insert(lists.len());
                match lists.get_mut(at) {
                    Some(names) => names.push(i),
                    None => lists.push(vec![i]),
                }
            }
            What::File { .. } => lists.push(vec![i]),
            _ => {}
        }
    }
    lists
}

fn kind(file: &Appended, names: &[usize]) -> Kind {
    let ino = if names.len() > 1 {
        names[0] as u32 + 1
    } else {
        0
    };
    Kind::File {
        size: file.size,
        content: file.content,
        extents: file.extents.clone(),
        ino,
    }
}

fn read_one(
    root: &OwnedFd,
    found: &Found,
    lower: &Tree,
    writer: &FlatWriter,
    buffer: &mut Vec<u8>,
) -> Result<Appended, CaptureError> {
    let What::File { size, .. } = found.what else {
        return Err(read_error("read", &found.path, io::ErrorKind::InvalidInput));
    };
    let mut reader = Reader {
        file: File::from(open(root, found)?),
        failed: None,
    };
    if let Some(content) = content_below(found, size, lower) {
        buffer.resize(256 << 10, 0);
        let hashed = hash(&mut reader, buffer).map_err(|e| read_error("read", &found.path, e))?;
        if hashed == (content, size) {
            return Ok(Appended {
                extents: Vec::new(),
                size,
                content,
            });
        }
        reader = Reader {
            file: File::from(open(root, found)?),
            failed: None,
        };
    }
    let appended = writer.append_file(&mut reader);
    if let Some(error) = reader.failed {
        return Err(read_error("read", &found.path, error));
    }
    let appended = appended.map_err(CaptureError::Write)?;
    if appended.size != size {
        return Err(CaptureError::Changed {
            path: show(&found.path),
        });
    }
    Ok(appended)
}

fn open(root: &OwnedFd, found: &Found) -> Result<OwnedFd, CaptureError> {
    open_file(root, &found.path).map_err(|e| read_error("open", &found.path, e))
}

/// The content below, where nothing but the content can tell the file from the one there.
fn content_below(found: &Found, size: u64, lower: &Tree) -> Option<Digest> {
    if !found.below_visible || found.is_linked() {
        return None;
    }
    let below = lower
        .get(&found.path)
        .filter(|b| may_be_equal(&found.metadata, size, b.entry))?;
    match below.entry.kind {
        Kind::File { content, .. } => Some(content),
        _ => None,
    }
}

fn hash(reader: &mut Reader, buffer: &mut [u8]) -> io::Result<(Digest, u64)> {
    let mut hasher = Sha256::new();
    let mut size = 0;
    loop {
        let got = reader.read(buffer)?;
        if got == 0 {
            return Ok((Digest::from_bytes(hasher.finalize().into()), size));
        }
        hasher.update(&buffer[..got]);
        size += got as u64;
    }
}

/// Remembers that reading failed, to tell it from a flat file that cannot be written.
struct Reader {
    file: File,
    failed: Option<io::Error>,
}

impl Read for Reader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.file.read(buf).map_err(|e| {
            let kind = e.kind();
            self.failed = Some(e);
            kind.into()
        })
    }
}
