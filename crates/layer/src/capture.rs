//! What a step left in an overlay's upper directory becomes a TOC and one flat file.
//!
//! What the kernel keeps there is its own notation; what a layer says is only what is different from below:
//! - An entry equal to the one below is dropped: same kind, mode, owner, attributes, content or target, and for
//!   everything but directories also the same modification time (a file that was only touched stays, as in BuildKit).
//!   A directory above something that stays is kept even where it is equal: programs that unpack layers one by one
//!   would otherwise give it default metadata.
//! - Whiteouts of what isn't below are dropped. A directory is opaque only where a directory is below: the kernel marks
//!   new ones too.
//! - Sockets are no part of layers; one in the place of something becomes a whiteout.
//! - Hard links are always kept: with overlayfs' `index=off` a group in the upper directory is one that the step made.
//! - `trusted.overlay.*` and `user.overlay.*` are dropped, and so is what the host's security modules add
//!   (`security.*` but for capabilities).
//!
//! The upper directory must not change meanwhile, and must not be mounted.

mod contents;
mod diff;
mod walk;

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;

use buildyard_model::FlatId;

use crate::beneath::open_root;
use crate::path::{is_within, parent, show};
use crate::{
    Entry, FlatFiles, Kind, Toc, Tree, number_links, path_cmp, random_flat_id, read_names,
};

use walk::{Found, What};

/// A captured layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// Its table of contents. Empty where the step changed nothing.
    pub toc: Toc,
    /// The flat file with its bytes; `None` where no file has any.
    pub flat: Option<FlatId>,
    /// The flat file's length in bytes.
    pub bytes: u64,
}

/// Why an upper directory was not captured.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The upper directory cannot be read.
    #[error("cannot {action} {path:?} of what a step left")]
    Read {
        /// What was tried.
        action: &'static str,
        /// The path in the upper directory.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file changed while it was read.
    #[error(
        "{path:?} of what a step left changed while it was captured: a process of the step still runs"
    )]
    Changed {
        /// The file.
        path: String,
    },
    /// The flat file cannot be written.
    #[error("cannot keep the bytes that a step left")]
    Write(#[source] io::Error),
}

/// Captures the upper directory `upper` over `lower`, reading files on `threads` threads.
///
/// The flat file is not waited for to be on the disk ([`FlatFiles::sync`] does): steps may go on with the layer meanwhile.
///
/// `stubs` are paths at which the runner made empty files or directories to mount something on: such an entry is
/// dropped where nothing is below and it is (still) an empty file or a directory in which nothing is kept. Directories
/// that were made on the way to a stub are stubs too.
pub fn capture(
    upper: &Path,
    lower: &Tree,
    stubs: &[Vec<u8>],
    flats: &FlatFiles,
    threads: usize,
) -> Result<Captured, CaptureError> {
    let root = open_root(upper).map_err(|e| read_error("open", b"", e))?;
    let found = walk::walk(&root, lower)?;
    let writer = flats.writer().map_err(CaptureError::Write)?;
    let contents = contents::read(&root, &found, lower, &writer, threads)?;
    let mut kept = judge(found, contents, lower);
    drop_stubs(&mut kept, stubs, lower);
    let entries = with_parents(kept);
    finish(entries, flats, writer)
}

fn read_error(action: &'static str, path: &[u8], error: impl Into<io::Error>) -> CaptureError {
    CaptureError::Read {
        action,
        path: show(path),
        source: error.into(),
    }
}

/// An entry, and whether it is a change or only there in case that something under it is.
struct Judged {
    entry: Entry,
    change: bool,
}

/// Turns what was found into entries, in order.
fn judge(found: Vec<Found>, mut contents: HashMap<usize, Kind>, lower: &Tree) -> Vec<Judged> {
    let mut judged: Vec<Judged> = Vec::with_capacity(found.len());
    for (i, one) in found.into_iter().enumerate() {
        let linked = one.is_linked();
        let visible = one.below_visible;
        let kind = match one.what {
            What::File { .. } => contents.remove(&i),
            What::Gone | What::Socket => visible
                .then(|| lower.get(&one.path))
                .flatten()
                .map(|_| Kind::Whiteout),
            What::Other(kind) => Some(kind),
        };
        let Some(kind) = kind else { continue };
        let entry = match kind {
            Kind::Whiteout => crate::assemble::bare(one.path, Kind::Whiteout, 0),
            kind => Entry {
                path: one.path,
                kind,
                ..one.metadata
            },
        };
        let under = if visible {
            lower.get(&entry.path)
        } else {
            None
        };
        let change = linked || !under.is_some_and(|under| diff::is_equal(&entry, under.entry));
        judged.push(Judged { entry, change });
    }
    judged.sort_by(|a, b| path_cmp(&a.entry.path, &b.entry.path));
    judged
}

fn drop_stubs(judged: &mut Vec<Judged>, stubs: &[Vec<u8>], lower: &Tree) {
    let mut stubs: Vec<&Vec<u8>> = stubs
        .iter()
        .filter(|path| lower.get(path).is_none())
        .collect();
    // Deepest first, so that a stub's own parent, where it is one, is empty when its turn comes.
    stubs.sort_by(|a, b| path_cmp(b, a));
    for stub in stubs {
        let Ok(at) = judged.binary_search_by(|j| path_cmp(&j.entry.path, stub)) else {
            continue;
        };
        let empty = match &judged[at].entry.kind {
            Kind::File { size: 0, .. } => true,
            Kind::Directory { .. } => judged
                .get(at + 1)
                .is_none_or(|next| !is_within(&next.entry.path, stub)),
            _ => false,
        };
        if empty {
            judged.remove(at);
        }
    }
}

/// The changes, and the directories above them.
fn with_parents(judged: Vec<Judged>) -> Vec<Entry> {
    let mut needed: HashSet<Vec<u8>> = HashSet::new();
    for change in judged.iter().filter(|j| j.change) {
        let mut path = change.entry.path.as_slice();
        while let Some(up) = parent(path).filter(|up| !up.is_empty()) {
            if !needed.insert(up.to_vec()) {
                break;
            }
            path = up;
        }
    }
    judged
        .into_iter()
        .filter(|j| j.change || needed.contains(&j.entry.path))
        .map(|j| j.entry)
        .collect()
}

fn finish(
    mut entries: Vec<Entry>,
    flats: &FlatFiles,
    writer: crate::FlatWriter,
) -> Result<Captured, CaptureError> {
    number_links(&mut entries);
    let has_bytes =
        |e: &Entry| matches!(&e.kind, Kind::File { extents, .. } if !extents.is_empty());
    if !entries.iter().any(has_bytes) {
        return Ok(Captured {
            toc: Toc {
                entries,
                ..Toc::default()
            },
            flat: None,
            bytes: 0,
        });
    }
    let flat = random_flat_id();
    let bytes = writer.commit_unsynced(flat);
    let bytes = bytes.map_err(CaptureError::Write)?;
    let mut toc = Toc {
        entries,
        flats: vec![flat],
        ..Toc::default()
    };
    toc.names = read_names(&toc, flats).map_err(CaptureError::Write)?;
    Ok(Captured {
        toc,
        flat: Some(flat),
        bytes,
    })
}

#[cfg(test)]
mod tests;
