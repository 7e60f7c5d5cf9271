//! Go's `os.FileMode`, which fsutil sends: permission bits as everywhere, file types and special bits from the top.

/// `os.ModeDir`.
pub const GO_DIR: u32 = 1 << 31;
/// `os.ModeSymlink`.
pub const GO_SYMLINK: u32 = 1 << 27;
const GO_DEVICE: u32 = 1 << 26;
const GO_FIFO: u32 = 1 << 25;
const GO_SOCKET: u32 = 1 << 24;
const GO_SETUID: u32 = 1 << 23;
const GO_SETGID: u32 = 1 << 22;
const GO_CHAR_DEVICE: u32 = 1 << 21;
const GO_STICKY: u32 = 1 << 20;
const GO_IRREGULAR: u32 = 1 << 19;
const GO_TYPE: u32 =
    GO_DIR | GO_SYMLINK | GO_DEVICE | GO_FIFO | GO_SOCKET | GO_CHAR_DEVICE | GO_IRREGULAR;

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
        0o040_000 => GO_DIR,
        0o120_000 => GO_SYMLINK,
        0o060_000 => GO_DEVICE,
        0o020_000 => GO_DEVICE | GO_CHAR_DEVICE,
        0o010_000 => GO_FIFO,
        0o140_000 => GO_SOCKET,
        _ => 0,
    };
    let special = [
        (0o4000, GO_SETUID),
        (0o2000, GO_SETGID),
        (0o1000, GO_STICKY),
    ];
    special
        .iter()
        .filter(|(bit, _)| mode & bit != 0)
        .fold(kind | (mode & 0o777), |go, (_, bit)| go | bit)
}

/// Go's mode as a kind and the twelve permission bits.
pub fn from_go_mode(go: u32) -> (u32, u32) {
    let special = [
        (0o4000, GO_SETUID),
        (0o2000, GO_SETGID),
        (0o1000, GO_STICKY),
    ];
    let bits = special
        .iter()
        .filter(|(_, bit)| go & bit != 0)
        .fold(go & 0o777, |mode, (bit, _)| mode | bit);
    (go & GO_TYPE, bits)
}

impl FileKind {
    /// The kind in a Go mode.
    pub(crate) fn of(go: u32) -> Self {
        match go & GO_TYPE {
            0 => Self::Regular,
            GO_DIR => Self::Directory,
            GO_SYMLINK => Self::Symlink,
            GO_FIFO => Self::Fifo,
            GO_DEVICE => Self::BlockDevice,
            kind if kind == GO_DEVICE | GO_CHAR_DEVICE => Self::CharDevice,
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
