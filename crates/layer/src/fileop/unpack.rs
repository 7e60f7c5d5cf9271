//! Unpacking an archive into the draft, as ADD does with a local one.
//!
//! The caller has read the archive into a tree. As moby's archive package does when it unpacks over existing files,
//! whatever is in the way of another kind is replaced, and directories that the archive lists set the metadata of those
//! that are there.

use std::collections::HashMap;

use super::{FileOpError, Owner, ReadSmall};
use crate::draft::Draft;
use crate::path;
use crate::resolve::Follow;
use crate::tree::Tree;
use crate::{Kind, Time};

/// Where and how an archive is unpacked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnpackAction {
    /// The directory to unpack into; made (0755) if it is missing.
    pub dest: String,
    /// Owner of everything; else what the archive says, and root for the destination.
    pub chown: Option<Owner>,
    /// Modification time of the destination if it is made; now if none. What is unpacked keeps the archive's times.
    pub timestamp: Option<Time>,
}

impl Draft<'_> {
    /// Unpacks an archive.
    ///
    /// # Errors
    ///
    /// The destination is a file or leads through one.
    pub fn unpack(
        &mut self,
        archive: &Tree,
        action: &UnpackAction,
        read: &mut ReadSmall<'_>,
    ) -> Result<(), FileOpError> {
        let dest = self.resolve(action.dest.as_bytes(), Follow::All)?;
        self.mkdir_all(&dest, 0o755, action.chown, action.timestamp)?;
        let mut inodes = HashMap::new();
        // What the archive says about its own root is no property of the destination.
        for node in archive.walk(b"").filter(|node| !node.path.is_empty()) {
            let target = path::join(&dest, node.path);
            if node.implied {
                // The archive does not list it: what is there serves, a link to a directory too.
                let target = self.resolve(&target, Follow::All)?;
                self.mkdir_all(&target, 0o755, action.chown, action.timestamp)?;
                continue;
            }
            // Links on the way are followed; one in the last component is replaced.
            let target = self.resolve(&target, Follow::Parents)?;
            let mut entry = self.flats.adopt(&node);
            entry.path.clone_from(&target);
            if let Some(Owner { uid, gid }) = action.chown {
                (entry.uid, entry.gid) = (uid, gid);
            }
            let inode = match entry.kind {
                Kind::File { .. } => *inodes.entry(node.inode).or_insert_with(|| self.new_inode()),
                _ => 0,
            };
            self.set(entry, inode);
            self.keep_names(archive, &node, &target, read)?;
        }
        Ok(())
    }
}
