//! A tar stream becomes a flat file and a TOC, in one pass.
//!
//! The uncompressed tar itself is the flat file, byte for byte: in a tar each file already starts at a multiple of 512
//! bytes and is padded with zeros. Neither decompression nor checking a digest against an expected one happens here.

use std::io::{BufReader, Read};

use buildyard_model::{Digest, FlatId};
use sha2::{Digest as _, Sha256};

use crate::assemble::{AssembleError, Assembler};
use crate::check::is_kept_xattr;
use crate::decompress::{Limited, TooManyBytes, sniffed_decompressor};
use crate::extent_source::read_names;
use crate::flat::FlatFiles;
use crate::path::{clean, clean_inside, file_name, join, parent, show};
use crate::tarread::{Member, TarError, TarReader, is_header};
use crate::tee::{TeeError, tee};
use crate::{Entry, Extent, Kind, Limits, Toc};

/// What came of a tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ingested {
    /// Its table of contents; the only flat file is [`Ingested::flat`].
    pub toc: Toc,
    /// SHA-256 of the uncompressed tar: a layer's diff id.
    pub diff_id: Digest,
    /// The flat file that the tar became; its id is the diff id.
    pub flat: FlatId,
    /// The tar's length in bytes.
    pub bytes: u64,
}

/// Why a tar was not taken. Nothing is kept of it then.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The stream failed: the network, the compression, or it ended early.
    #[error("cannot read the archive")]
    Read(#[source] std::io::Error),
    /// The flat file could not be written.
    #[error("cannot keep the archive's bytes on this machine")]
    Write(#[source] std::io::Error),
    /// Not a tar, or a damaged one.
    #[error("archive is malformed: {0}")]
    Malformed(String),
    /// A member that is refused, and why.
    #[error("archive member {path:?} is refused: {why}")]
    Refused {
        /// The member's path as it is in the archive.
        path: String,
        /// The rule that it breaks.
        why: String,
    },
    /// Larger than [`Limits`] allow.
    #[error("archive is refused: it has {0}")]
    TooLarge(String),
}

impl From<TarError> for IngestError {
    fn from(error: TarError) -> Self {
        match error {
            TarError::Read(e) => read_error(e),
            TarError::HeaderTooLong { .. } => Self::TooLarge(error.to_string()),
            TarError::Malformed { at, what } => Self::Malformed(format!("{what} (at byte {at})")),
        }
    }
}

fn read_error(error: std::io::Error) -> IngestError {
    match error
        .get_ref()
        .and_then(|e| e.downcast_ref::<TooManyBytes>())
    {
        Some(too_many) => IngestError::TooLarge(too_many.to_string()),
        None => IngestError::Read(error),
    }
}

/// How members are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rules {
    /// A layer of an image: whiteouts and devices count, paths are cleaned to inside the root.
    Layer,
    /// A user's archive: whiteouts are plain names; devices and paths that lead outside are refused.
    Archive,
}

/// Reads a layer's uncompressed tar. Its bytes become a flat file of `flats` under the diff id.
///
/// Paths are read as seen from the layer's root, as containerd does: absolute ones and `..` stay inside. A path goes
/// through symbolic links of this layer; those of lower layers are not known here. Extended attributes of overlayfs
/// are dropped. Memory grows with the number of entries only.
pub fn read_tar(
    reader: impl Read,
    flats: &FlatFiles,
    limits: &Limits,
) -> Result<Ingested, IngestError> {
    ingest(reader, flats, limits, Rules::Layer)
}

/// Reads a user's archive, as ADD unpacks it: a tar, plain or in gzip, bzip2, xz or zstd.
///
/// Device nodes, absolute paths and paths or hard links that lead outside the archive are refused by name; names that
/// look like whiteouts are plain files.
pub fn read_archive(
    reader: impl Read + Send,
    flats: &FlatFiles,
    limits: &Limits,
) -> Result<Ingested, IngestError> {
    let plain = sniffed_decompressor(reader).map_err(read_error)?;
    ingest(plain, flats, limits, Rules::Archive)
}

/// Whether `reader` begins like an archive that [`read_archive`] unpacks. ADD copies other files as they are.
pub fn is_archive(reader: impl Read + Send) -> bool {
    let mut block = [0; 512];
    let read = sniffed_decompressor(reader).and_then(|mut plain| plain.read_exact(&mut block));
    read.is_ok() && is_header(&block)
}

fn ingest(
    reader: impl Read,
    flats: &FlatFiles,
    limits: &Limits,
    rules: Rules,
) -> Result<Ingested, IngestError> {
    let writer = flats.writer().map_err(IngestError::Write)?;
    let reader = BufReader::with_capacity(128 << 10, Limited::new(reader, limits.bytes));
    let (entries, diff_id, bytes) = tee(reader, &writer, |stream| {
        read_members(stream, limits, rules)
    })
    .map_err(|error| match error {
        TeeError::Parse(e) => e,
        TeeError::Read(e) => read_error(e),
        TeeError::Write(e) => IngestError::Write(e),
    })?;
    let flat = FlatId::from(diff_id);
    writer.commit(flat).map_err(IngestError::Write)?;
    let mut toc = Toc {
        entries,
        flats: vec![flat],
        ..Toc::default()
    };
    toc.names = read_names(&toc, flats).map_err(IngestError::Write)?;
    Ok(Ingested {
        toc,
        diff_id,
        flat,
        bytes,
    })
}

fn read_members(
    stream: impl Read,
    limits: &Limits,
    rules: Rules,
) -> Result<Vec<Entry>, IngestError> {
    let mut tar = TarReader::new(stream, limits);
    let mut assembler = Assembler::default();
    let mut budget = Budget {
        limits,
        members: 0,
        bytes: 0,
        metadata: 0,
    };
    let mut buffer = vec![0; 64 << 10];
    while let Some(member) = tar.next_member()? {
        budget.spend(&member)?;
        let path = member_path(&member, rules)?;
        if rules == Rules::Layer && file_name(&path).starts_with(WHITEOUT) {
            apply_whiteout(&mut assembler, &path).map_err(|why| refused(&member.path, why))?;
            continue;
        }
        let kind = member_kind(&member, &mut tar, &mut buffer, rules)?;
        let entry = member_entry(&member, path, kind)?;
        let applied = match member.flag {
            b'1' => {
                let target = inside(&member.link, rules)
                    .ok_or_else(|| refused(&member.path, "its target lies outside"))?;
                assembler.link(entry, &target)
            }
            _ => assembler.set(entry),
        };
        applied.map_err(|why: AssembleError| refused(&member.path, why))?;
    }
    assembler
        .finish()
        .map_err(|(path, why)| refused(&path, why))
}

fn refused(path: &[u8], why: impl ToString) -> IngestError {
    IngestError::Refused {
        path: show(path),
        why: why.to_string(),
    }
}

/// Counts against the limits.
struct Budget<'a> {
    limits: &'a Limits,
    members: u64,
    bytes: u64,
    metadata: u64,
}

impl Budget<'_> {
    fn spend(&mut self, member: &Member) -> Result<(), IngestError> {
        self.members += 1;
        let size = member.sparse.as_ref().map_or(member.stored, |map| map.size);
        self.bytes = self.bytes.saturating_add(size);
        if self.members > self.limits.entries {
            return Err(IngestError::TooLarge(format!(
                "more than the {} members that are allowed",
                self.limits.entries
            )));
        }
        if self.bytes > self.limits.bytes {
            return Err(IngestError::TooLarge(
                TooManyBytes(self.limits.bytes).to_string(),
            ));
        }
        let xattrs: usize = member
            .xattrs
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        self.metadata += (member.path.len() + member.link.len() + xattrs) as u64;
        if self.metadata > self.limits.metadata {
            return Err(IngestError::TooLarge(format!(
                "more than {} bytes of names and attributes",
                self.limits.metadata
            )));
        }
        if member.path.len().max(member.link.len()) > self.limits.path {
            return Err(refused(
                &member.path,
                format!("its path has more than {} bytes", self.limits.path),
            ));
        }
        Ok(())
    }
}

fn inside(path: &[u8], rules: Rules) -> Option<Vec<u8>> {
    match rules {
        Rules::Layer => Some(clean(path)),
        Rules::Archive => clean_inside(path),
    }
}

fn member_path(member: &Member, rules: Rules) -> Result<Vec<u8>, IngestError> {
    if member.path.contains(&0) || member.link.contains(&0) {
        return Err(refused(&member.path, "its path has a NUL byte"));
    }
    inside(&member.path, rules).ok_or_else(|| {
        refused(
            &member.path,
            "its path is absolute or leads outside the archive",
        )
    })
}

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Names that AUFS kept for itself; other programs skip them too.
const AUFS: &[u8] = b".wh..wh.";

fn apply_whiteout(assembler: &mut Assembler, path: &[u8]) -> Result<(), String> {
    let name = file_name(path);
    let directory = parent(path).unwrap_or_default();
    if name == OPAQUE {
        return assembler.opaque(directory).map_err(|e| e.to_string());
    }
    if name.starts_with(AUFS) {
        return Ok(());
    }
    match &name[WHITEOUT.len()..] {
        b"" | b"." | b".." => Err("it is a whiteout without a name".into()),
        hidden => assembler
            .whiteout(&join(directory, hidden))
            .map_err(|e| e.to_string()),
    }
}

/// The member's kind; reads its data where it is a file.
fn member_kind<R: Read>(
    member: &Member,
    tar: &mut TarReader<R>,
    buffer: &mut [u8],
    rules: Rules,
) -> Result<Kind, IngestError> {
    Ok(match member.flag {
        b'0' => read_file(member, tar, buffer)?,
        // Replaced where it is linked: in the assembler.
        b'1' => Kind::LinkBelow { target: Vec::new() },
        b'2' if member.link.is_empty() => {
            return Err(refused(&member.path, "it is a symbolic link to nothing"));
        }
        b'2' => Kind::Symlink {
            target: member.link.clone(),
        },
        b'3' | b'4' if rules == Rules::Archive => {
            return Err(refused(
                &member.path,
                "it is a device node, which archives in a build may not have",
            ));
        }
        b'3' if (member.major, member.minor) == (0, 0) => {
            return Err(refused(
                &member.path,
                "it is the device 0:0, which overlayfs takes for a removed path",
            ));
        }
        b'3' => Kind::CharDevice {
            major: member.major,
            minor: member.minor,
        },
        b'4' => Kind::BlockDevice {
            major: member.major,
            minor: member.minor,
        },
        b'5' => Kind::Directory { opaque: false },
        b'6' => Kind::Fifo,
        other => {
            return Err(refused(
                &member.path,
                format!("its type {:?} is not known", char::from(other)),
            ));
        }
    })
}

fn member_entry(member: &Member, path: Vec<u8>, kind: Kind) -> Result<Entry, IngestError> {
    let id = |id: u64| {
        u32::try_from(id).map_err(|_| refused(&member.path, "its owner does not fit 32 bits"))
    };
    let kept = member.xattrs.iter().filter(|(name, _)| is_kept_xattr(name));
    Ok(Entry {
        path,
        kind,
        mode: member.mode,
        uid: id(member.uid)?,
        gid: id(member.gid)?,
        mtime: member.mtime,
        xattrs: kept
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
    })
}

/// Hashes the file's data as it goes by; its bytes are where they are in the tar.
fn read_file<R: Read>(
    member: &Member,
    tar: &mut TarReader<R>,
    buffer: &mut [u8],
) -> Result<Kind, IngestError> {
    let whole = [(0, member.stored)];
    let (size, chunks) = match &member.sparse {
        Some(map) => (map.size, map.chunks.as_slice()),
        None => (member.stored, whole.as_slice()),
    };
    let mut hasher = Sha256::new();
    let mut extents = Vec::new();
    let mut end = 0;
    for (at, length) in chunks.iter().filter(|(_, length)| *length > 0) {
        hash_zeros(&mut hasher, at - end);
        let offset = tar.position();
        hash_data(&mut hasher, tar, *length, buffer)?;
        extents.push(Extent {
            flat: 0,
            offset,
            length: *length,
            at: *at,
        });
        end = at + length;
    }
    hash_zeros(&mut hasher, size - end);
    let content = Digest::from_bytes(hasher.finalize().into());
    Ok(Kind::File {
        size,
        content,
        extents,
        ino: 0,
    })
}

fn hash_data(
    hasher: &mut Sha256,
    data: &mut dyn Read,
    length: u64,
    buffer: &mut [u8],
) -> Result<(), IngestError> {
    let mut left = length;
    while left > 0 {
        let part = left.min(buffer.len() as u64) as usize;
        data.read_exact(&mut buffer[..part]).map_err(read_error)?;
        hasher.update(&buffer[..part]);
        left -= part as u64;
    }
    Ok(())
}

/// Hashes a hole.
pub(crate) fn hash_zeros(hasher: &mut Sha256, mut length: u64) {
    const ZEROS: &[u8] = &[0; 16 << 10];
    while length > 0 {
        let part = length.min(ZEROS.len() as u64);
        hasher.update(&ZEROS[..part as usize]);
        length -= part;
    }
}

#[cfg(test)]
mod tests;
