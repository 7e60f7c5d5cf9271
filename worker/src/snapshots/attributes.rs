//! The attributes of a directory that overlayfs takes from its topmost layer: a directory that exists in a layer only
//! because something in it changed must look like the one below.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use buildyard_layer::Entry;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT, XattrFlags};

/// Mode, owner, modification time and extended attributes of a directory or file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attributes {
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: (i64, i64),
    xattrs: Vec<(CString, Vec<u8>)>,
}

impl Attributes {
    /// Those of a directory that no layer describes.
    pub(super) fn undescribed() -> Self {
        Self {
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: (0, 0),
            xattrs: Vec::new(),
        }
    }

    /// Those that a table of contents gives a directory.
    pub(super) fn of(entry: &Entry) -> Self {
        let xattrs = entry.xattrs.iter().filter_map(|(name, value)| {
            // Names come from the kernel or were checked when the layer was read: they hold no NUL.
            Some((CString::new(name.clone()).ok()?, value.clone()))
        });
        Self {
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: (entry.mtime.seconds, entry.mtime.nanos.into()),
            xattrs: xattrs.collect(),
        }
    }

    /// Reads those of `path`, which is not a symbolic link.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        Ok(Self {
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            xattrs: read_xattrs(path)?,
        })
    }

    /// Gives them to `path`, which is not a symbolic link.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        // The owner first: changing it clears the set-user-id bit and file capabilities.
        chown(path, Some(self.uid), Some(self.gid))?;
        fs::set_permissions(path, fs::Permissions::from_mode(self.mode))?;
        for (name, value) in &self.xattrs {
            rustix::fs::lsetxattr(path, name.as_c_str(), value, XattrFlags::empty())?;
        }
        let times = Timestamps {
            last_access: Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_OMIT,
            },
            last_modification: Timespec {
                tv_sec: self.mtime.0,
                tv_nsec: self.mtime.1,
            },
        };
        rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(())
    }
}

/// All extended attributes but overlayfs's own.
fn read_xattrs(path: &Path) -> io::Result<Vec<(CString, Vec<u8>)>> {
    let mut names = vec![0; 0x1_0000]; // XATTR_LIST_MAX
    let length = match rustix::fs::llistxattr(path, &mut names[..]) {
        Ok(length) => length,
        Err(rustix::io::Errno::NOTSUP) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut xattrs = Vec::new();
    for name in names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
            continue;
        }
        let name = CString::new(name).map_err(io::Error::other)?;
        let mut value = vec![0; 0x1_0000]; // XATTR_SIZE_MAX
        let length = rustix::fs::lgetxattr(path, name.as_c_str(), &mut value[..])?;
        value.truncate(length);
        xattrs.push((name, value));
    }
    Ok(xattrs)
}

/// `path` below `root`, as bytes; the empty path is `root` itself.
pub(super) fn inside(root: &Path, path: &[u8]) -> std::path::PathBuf {
    if path.is_empty() {
        root.to_owned()
    } else {
        root.join(std::ffi::OsStr::from_bytes(path))
    }
}
