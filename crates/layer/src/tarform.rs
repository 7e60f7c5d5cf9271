//! The tar form of a layer that we made: version 1, frozen.
//!
//! The form follows what containerd and BuildKit write, so that other programs find what they expect: USTAR headers
//! with numeric owners and no names, PAX records only where a header cannot say it, modification times cut to whole
//! seconds, `SCHILY.xattr.*`, directories with a slash at the end, hard links behind the first path, whiteouts with
//! empty metadata. Entries stand in the order of the TOC. Two zero blocks end it.
//!
//! The SHA-256 of these bytes is published as the diff id. Any change of them needs a new [`TAR_FORM_VERSION`].

mod header;

use std::collections::HashMap;
use std::io::{self, Read, Write};

use buildyard_model::Digest;
use sha2::{Digest as _, Sha256};

use crate::path::{file_name, join, parent, show};
use crate::{Entry, ExtentSource, FileReader, Kind, Toc};

use header::{Header, write_header};

/// The version of the tar form. Records of diff ids and encodings carry it.
pub const TAR_FORM_VERSION: u32 = 1;

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TarSummary {
    /// The tar's length in bytes.
    pub size: u64,
    /// Its SHA-256: the layer's diff id.
    pub diff_id: Digest,
}

/// Why a layer's tar form cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum TarFormError {
    /// The destination failed.
    #[error("cannot write the tar of a layer")]
    Write(#[source] io::Error),
    /// A file's bytes are not here or cannot be read.
    #[error("cannot read the bytes of {path:?} for the tar of a layer")]
    Read {
        /// The file.
        path: String,
        /// What failed.
        source: io::Error,
    },
    /// A file's bytes are not those that the TOC promises.
    #[error("the bytes of {path:?} have digest {found}, not {wanted}: their flat file is damaged")]
    Damaged {
        /// The file.
        path: String,
        /// What the TOC says.
        wanted: Digest,
        /// What was read.
        found: Digest,
    },
    /// Something that a layer's tar has no way to say.
    #[error("{path:?} cannot be put into an image layer: {why}")]
    NotPossible {
        /// The entry.
        path: String,
        /// Which rule of the format it breaks.
        why: &'static str,
    },
}

/// Writes the tar form of `toc` to `out`. Memory doesn't grow with the layer. Each file's content digest is checked
/// on the way, so that damage on this machine is never published.
pub fn write_tar(
    toc: &Toc,
    source: &dyn ExtentSource,
    out: &mut dyn Write,
) -> Result<TarSummary, TarFormError> {
    write_entries(toc, source, &mut Uncut(out))
}

/// Where a tar goes that looks at where its entries begin.
pub(crate) trait EntrySink: Write {
    /// What is written next is the entry at `path`.
    fn entry(&mut self, path: &[u8]) -> io::Result<()>;
}

/// As [`write_tar`].
pub(crate) fn write_entries(
    toc: &Toc,
    source: &dyn ExtentSource,
    out: &mut dyn EntrySink,
) -> Result<TarSummary, TarFormError> {
    let out = Hashing {
        out,
        hasher: Sha256::new(),
        size: 0,
    };
    let mut writer = TarWriter {
        out,
        toc,
        source,
        first_names: HashMap::new(),
        buffer: vec![0; 256 << 10],
    };
    for entry in &toc.entries {
        let begun = writer.out.out.entry(&entry.path);
        begun.map_err(TarFormError::Write)?;
        writer.entry(entry)?;
    }
    let mut out = writer.out;
    out.write_all(&[0; 1024]).map_err(TarFormError::Write)?;
    Ok(TarSummary {
        size: out.size,
        diff_id: Digest::from_bytes(out.hasher.finalize().into()),
    })
}

/// Any destination.
struct Uncut<'a>(&'a mut dyn Write);

impl Write for Uncut<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl EntrySink for Uncut<'_> {
    fn entry(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

struct Hashing<'a> {
    out: &'a mut dyn EntrySink,
    hasher: Sha256,
    size: u64,
}

impl Hashing<'_> {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

struct TarWriter<'a> {
    out: Hashing<'a>,
    toc: &'a Toc,
    source: &'a dyn ExtentSource,
    /// The first path of each hard-link group.
    first_names: HashMap<u32, &'a [u8]>,
    buffer: Vec<u8>,
}

impl<'a> TarWriter<'a> {
    fn entry(&mut self, entry: &'a Entry) -> Result<(), TarFormError> {
        let name = file_name(&entry.path);
        if name.starts_with(b".wh.") {
            return Err(not_possible(
                entry,
                "names that start with `.wh.` mean removal in a layer",
            ));
        }
        if entry.xattrs.keys().any(|name| name.contains(&b'=')) {
            return Err(not_possible(
                entry,
                "an extended attribute has `=` in its name",
            ));
        }
        match &entry.kind {
            Kind::File {
                size, content, ino, ..
            } => self.file(entry, *size, *content, *ino),
            Kind::Directory { opaque } => self.directory(entry, *opaque),
            Kind::Symlink { target } => self.header(Header::of(entry, b'2').link(target)),
            Kind::CharDevice { major, minor } => {
                self.header(Header::of(entry, b'3').device(*major, *minor))
            }
            Kind::BlockDevice { major, minor } => {
                self.header(Header::of(entry, b'4').device(*major, *minor))
            }
            Kind::Fifo => self.header(Header::of(entry, b'6')),
            Kind::Whiteout => {
                let directory = parent(&entry.path).unwrap_or_default();
                self.marker(join(directory, &[b".wh.", name].concat()))
            }
            Kind::LinkBelow { target } => self.header(Header::of(entry, b'1').link(target)),
        }
    }

    fn directory(&mut self, entry: &Entry, opaque: bool) -> Result<(), TarFormError> {
        let path = if entry.path.is_empty() {
            b"./".to_vec()
        } else {
            [&entry.path[..], b"/"].concat()
        };
        self.header(Header::of(entry, b'5').path(path))?;
        if opaque {
            self.marker(join(&entry.path, b".wh..wh..opq"))
        } else {
            Ok(())
        }
    }

    /// A whiteout: an empty file without metadata.
    fn marker(&mut self, path: Vec<u8>) -> Result<(), TarFormError> {
        self.header(Header::marker(path))
    }

    fn file(
        &mut self,
        entry: &'a Entry,
        size: u64,
        content: Digest,
        ino: u32,
    ) -> Result<(), TarFormError> {
        if let Some(first) = self.first_names.get(&ino).copied() {
            return self.header(Header::of(entry, b'1').link(first));
        }
        if ino != 0 {
            self.first_names.insert(ino, &entry.path);
        }
        self.header(Header::of(entry, b'0').size(size))?;
        let found = self.data(entry)?;
        if found != content {
            return Err(TarFormError::Damaged {
                path: show(&entry.path),
                wanted: content,
                found,
            });
        }
        let padding = (size.next_multiple_of(512) - size) as usize;
        self.out
            .write_all(&[0; 512][..padding])
            .map_err(TarFormError::Write)
    }

    /// Writes the file's bytes and gives their digest.
    fn data(&mut self, entry: &Entry) -> Result<Digest, TarFormError> {
        let mut hasher = Sha256::new();
        let reader = FileReader::of_entry(self.source, self.toc, entry);
        let mut reader =
            reader.expect("only regular files have data, and this is called for those");
        loop {
            let read = reader.read(&mut self.buffer);
            let got = read.map_err(|source| TarFormError::Read {
                path: show(&entry.path),
                source,
            })?;
            if got == 0 {
                return Ok(Digest::from_bytes(hasher.finalize().into()));
            }
            hasher.update(&self.buffer[..got]);
            self.out
                .write_all(&self.buffer[..got])
                .map_err(TarFormError::Write)?;
        }
    }

    fn header(&mut self, header: Header) -> Result<(), TarFormError> {
        let mut bytes = Vec::with_capacity(512);
        write_header(&header, &mut bytes);
        self.out.write_all(&bytes).map_err(TarFormError::Write)
    }
}

fn not_possible(entry: &Entry, why: &'static str) -> TarFormError {
    TarFormError::NotPossible {
        path: show(&entry.path),
        why,
    }
}

#[cfg(test)]
mod tests;
