//! Making files, directories and symbolic links.

use buildyard_model::{Digest, FlatId};

use super::{FileOpError, Owner};
use crate::draft::{Draft, name_file};
use crate::path;
use crate::{Extent, Kind, Time};

/// The content of a file, whose bytes lie in flat files already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Length in bytes.
    pub size: u64,
    /// SHA-256 of the whole content.
    pub digest: Digest,
    /// Where the bytes are; `flat` is an index into `flats`.
    pub extents: Vec<Extent>,
    /// The flat files of the extents.
    pub flats: Vec<FlatId>,
}

/// BuildKit's `FileActionMkFile`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MkfileAction {
    /// The path; links are followed, its parent must exist, a file that is there is replaced.
    pub path: String,
    /// Permission bits; only `0o777` count.
    pub mode: u32,
    /// What is in it.
    pub content: Content,
    /// The same as bytes, where `path` is `/etc/passwd` or `/etc/group`; unused for other paths.
    pub small: Option<Vec<u8>>,
    /// Owner; root if none.
    pub owner: Option<Owner>,
    /// Modification time; now if none.
    pub timestamp: Option<Time>,
}

/// BuildKit's `FileActionMkDir`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MkdirAction {
    /// The path; links are followed.
    pub path: String,
    /// Permission bits; only `0o777` count. Parents get them too.
    pub mode: u32,
    /// Whether missing parents are made.
    pub make_parents: bool,
    /// Owner of what is made; root if none.
    pub owner: Option<Owner>,
    /// Modification time; now if none.
    pub timestamp: Option<Time>,
}

/// BuildKit's `FileActionSymlink`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SymlinkAction {
    /// What the link points to, as it is.
    pub oldpath: String,
    /// The path of the link; links on the way are followed, and nothing may be there yet.
    pub newpath: String,
    /// Owner; root if none.
    pub owner: Option<Owner>,
    /// Modification time; now if none.
    pub timestamp: Option<Time>,
}

impl Draft<'_> {
    /// Writes a file.
    ///
    /// # Errors
    ///
    /// Its parent does not exist, or it is a directory.
    pub fn mkfile(&mut self, action: &MkfileAction) -> Result<(), FileOpError> {
        let path = self.resolve_new("open", &action.path)?;
        if self.is_directory(&path) {
            return Err(FileOpError::IsADirectory {
                operation: "open",
                path: path::display(&path),
            });
        }
        let Content {
            size,
            digest,
            extents,
            flats,
        } = &action.content;
        let extents = extents
            .iter()
            .filter_map(|extent| {
                let flat = self.flats.index(*flats.get(extent.flat as usize)?);
                Some(Extent { flat, ..*extent })
            })
            .collect();
        let kind = Kind::File {
            size: *size,
            content: *digest,
            extents,
            ino: 0,
        };
        self.remove(&path);
        self.make(
            &path,
            kind,
            action.mode & 0o777,
            action.owner,
            action.timestamp,
        );
        if let Some(bytes) = name_file(&mut self.names, &path) {
            bytes.clone_from(&action.small);
        }
        Ok(())
    }

    /// Makes a directory. One that is there stays as it is.
    ///
    /// # Errors
    ///
    /// The parent does not exist, or something else is in the way.
    pub fn mkdir(&mut self, action: &MkdirAction) -> Result<(), FileOpError> {
        let mode = action.mode & 0o777;
        if action.make_parents {
            let path = self.resolve(action.path.as_bytes(), crate::Follow::All)?;
            return self.mkdir_all(&path, mode, action.owner, action.timestamp);
        }
        let path = self.resolve_new("mkdir", &action.path)?;
        // Like BuildKit, whatever is there counts as made.
        if self.get(&path).is_none() {
            self.make(
                &path,
                Kind::Directory { opaque: false },
                mode,
                action.owner,
                action.timestamp,
            );
        }
        Ok(())
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    ///
    /// The parent does not exist, or the path is taken.
    pub fn symlink(&mut self, action: &SymlinkAction) -> Result<(), FileOpError> {
        let path = self.resolve_new("symlink", &action.newpath)?;
        if self.get(&path).is_some() {
            return Err(FileOpError::Exists {
                target: action.oldpath.clone(),
                path: path::display(&path),
            });
        }
        let kind = Kind::Symlink {
            target: action.oldpath.clone().into_bytes(),
        };
        self.make(&path, kind, 0o777, action.owner, action.timestamp);
        Ok(())
    }
}
