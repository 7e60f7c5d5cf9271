//! Go's `os.FileMode`, which fsutil sends: permission bits as everywhere, file types and special bits from the top.

use buildyard_session::go_mode::{
    CHAR_DEVICE, DEVICE, DIR, NAMED_PIPE, SOCKET, SYMLINK, TYPE, from_unix, to_unix,
};

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// A file with content.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// Anything else.
    Other,
}

/// `st_mode` as Go's mode.
pub fn to_go_mode(mode: u32) -> u32 {
    let kind = match mode & 0o170_000 {
        0o040_000 => DIR,
        0o120_000 => SYMLINK,
        0o060_000 => DEVICE,
        0o020_000 => DEVICE | CHAR_DEVICE,
        0o010_000 => NAMED_PIPE,
        0o140_000 => SOCKET,
        _ => 0,
    };
    kind | from_unix(mode)
}

/// Go's mode as a kind and the twelve permission bits.
pub fn from_go_mode(go: u32) -> (u32, u32) {
    (go & TYPE, to_unix(go))
}

impl FileKind {
    /// The kind in a Go mode.
    pub(crate) fn of(go: u32) -> Self {
        match go & TYPE {
            0 => Self::Regular,
            DIR => Self::Directory,
            SYMLINK => Self::Symlink,
            NAMED_PIPE => Self::Fifo,
            DEVICE => Self::BlockDevice,
            kind if kind == DEVICE | CHAR_DEVICE => Self::CharDevice,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_translate() {
        let check = |mode: u32, go: u32, kind: FileKind| {
            assert_eq!(to_go_mode(mode), go, "{mode:o}");
            assert_eq!(FileKind::of(go), kind);
            assert_eq!(from_go_mode(go).1, mode & 0o7777);
        };
        check(0o100_644, 0o644, FileKind::Regular);
        check(0o104_755, 0o755 | 1 << 23, FileKind::Regular);
        check(0o041_777, 0o777 | 1 << 31 | 1 << 20, FileKind::Directory);
        check(0o120_777, 0o777 | 1 << 27, FileKind::Symlink);
        check(0o010_600, 0o600 | 1 << 25, FileKind::Fifo);
        check(0o020_600, 0o600 | 1 << 26 | 1 << 21, FileKind::CharDevice);
        check(0o060_600, 0o600 | 1 << 26, FileKind::BlockDevice);
    }
}
