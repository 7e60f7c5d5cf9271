//! Go's `os.FileMode`, which fsutil and the gateway send: the permission bits are Unix's, everything else has its own bit at
//! the top.

/// A directory.
pub const DIR: u32 = 1 << 31;
/// A symbolic link.
pub const SYMLINK: u32 = 1 << 27;
/// A device; a block device unless [`CHAR_DEVICE`] is set too.
pub const DEVICE: u32 = 1 << 26;
/// A named pipe.
pub const NAMED_PIPE: u32 = 1 << 25;
/// A socket.
pub const SOCKET: u32 = 1 << 24;
/// Set-user-id.
pub const SET_UID: u32 = 1 << 23;
/// Set-group-id.
pub const SET_GID: u32 = 1 << 22;
/// With [`DEVICE`]: a character device.
pub const CHAR_DEVICE: u32 = 1 << 21;
/// The sticky bit.
pub const STICKY: u32 = 1 << 20;
/// Something else.
pub const IRREGULAR: u32 = 1 << 19;
/// The bits that say what kind of file it is; none set: a regular file.
pub const TYPE: u32 = DIR | SYMLINK | DEVICE | NAMED_PIPE | SOCKET | CHAR_DEVICE | IRREGULAR;

const SPECIAL: [(u32, u32); 3] = [(SET_UID, 0o4000), (SET_GID, 0o2000), (STICKY, 0o1000)];

/// Unix permission bits with set-user-id, set-group-id and sticky.
pub fn to_unix(go: u32) -> u32 {
    let special = SPECIAL
        .iter()
        .filter(|(bit, _)| go & bit != 0)
        .map(|(_, unix)| unix);
    special.fold(go & 0o777, |mode, bit| mode | bit)
}

/// The other way; the type's bits are the caller's.
pub fn from_unix(unix: u32) -> u32 {
    let special = SPECIAL
        .iter()
        .filter(|(_, bit)| unix & bit != 0)
        .map(|(go, _)| go);
    special.fold(unix & 0o777, |mode, bit| mode | bit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_gos() {
        assert_eq!(to_unix(0o644), 0o644);
        assert_eq!(to_unix(DIR | STICKY | 0o777), 0o1777);
        assert_eq!(to_unix(SET_UID | SET_GID | 0o755), 0o6755);
        for unix in [0o7777, 0o4755, 0o600, 0] {
            assert_eq!(to_unix(from_unix(unix)), unix);
        }
    }
}
