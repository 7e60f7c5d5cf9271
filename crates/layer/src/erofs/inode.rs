//! Inodes: 32 bytes where the numbers are small and the time is the image's, 64 bytes otherwise.

use super::chunk::Chunks;
use crate::{Entry, Kind, Time};

/// The unit that inodes are numbered in, and aligned to.
pub(super) const INODE_UNIT: u64 = 32;

/// An inode but for its number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inode<'a> {
    pub(super) entry: &'a Entry,
    pub(super) whiteout: bool,
    pub(super) links: u32,
    /// Bytes of its contents: of a directory or link target as they are stored.
    pub(super) size: u64,
    pub(super) data: Data,
    /// Bytes of its extended attributes as they are stored behind it.
    pub(super) xattr_bytes: usize,
}

/// Where an inode's contents are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Data {
    /// There are none.
    None,
    /// In blocks of the image from this one on.
    Blocks(u32),
    /// The last part, less than a block, right behind the inode and its attributes; the rest in blocks from this one on.
    Inline(u32),
    /// In chunks.
    Chunks(Chunks),
}

/// The values of `i_format`: bit 0 is the long form, then the data layout.
impl Data {
    fn layout(self) -> u16 {
        match self {
            Data::None | Data::Blocks(_) => 0,
            Data::Inline(_) => 2,
            Data::Chunks(_) => 4,
        }
    }

    fn union(self) -> u32 {
        match self {
            Data::None => 0,
            Data::Blocks(block) | Data::Inline(block) => block,
            Data::Chunks(chunks) => chunks.format(),
        }
    }
}

impl Inode<'_> {
    /// Whether the short form can say it.
    pub(super) fn is_compact(&self, epoch: Time) -> bool {
        let small = |number: u32| number <= u32::from(u16::MAX);
        self.time() == epoch
            && small(self.uid())
            && small(self.gid())
            && small(self.links)
            && u32::try_from(self.size).is_ok()
    }

    /// Bytes of the inode itself.
    pub(super) fn bytes(&self, epoch: Time) -> u64 {
        if self.is_compact(epoch) { 32 } else { 64 }
    }

    /// `number` is what programs that have no room for the real one are shown.
    pub(super) fn encode(&self, epoch: Time, number: u32) -> Vec<u8> {
        let compact = self.is_compact(epoch);
        let mut bytes = vec![0; self.bytes(epoch) as usize];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(
            0,
            &(u16::from(!compact) | self.data.layout() << 1).to_le_bytes(),
        );
        put(2, &self.xattr_count().to_le_bytes());
        put(4, &self.mode().to_le_bytes());
        let union = self.rdev().unwrap_or_else(|| self.data.union());
        put(16, &union.to_le_bytes());
        put(20, &number.to_le_bytes());
        if compact {
            put(6, &(self.links as u16).to_le_bytes());
            put(8, &(self.size as u32).to_le_bytes());
            put(24, &(self.uid() as u16).to_le_bytes());
            put(26, &(self.gid() as u16).to_le_bytes());
        } else {
            put(8, &self.size.to_le_bytes());
            put(24, &self.uid().to_le_bytes());
            put(28, &self.gid().to_le_bytes());
            put(32, &self.time().seconds.to_le_bytes());
            put(40, &self.time().nanos.to_le_bytes());
            put(44, &self.links.to_le_bytes());
        }
        bytes
    }

    /// The header of the attributes counts as one, each further four bytes as one more.
    fn xattr_count(&self) -> u16 {
        match self.xattr_bytes.checked_sub(super::xattr::HEADER) {
            Some(rest) => 1 + (rest / 4) as u16,
            None => 0,
        }
    }

    fn mode(&self) -> u16 {
        file_type(self.entry, self.whiteout).0 | (self.entry.mode & 0o7777) as u16
    }

    fn uid(&self) -> u32 {
        owner(self.entry.uid)
    }

    fn gid(&self) -> u32 {
        owner(self.entry.gid)
    }

    fn time(&self) -> Time {
        self.entry.mtime
    }

    /// The device number in the kernel's own encoding, for what is a device; a whiteout is device 0:0.
    fn rdev(&self) -> Option<u32> {
        match self.entry.kind {
            _ if self.whiteout => Some(0),
            Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
                Some(minor & 0xff | major << 8 | (minor & !0xff) << 12)
            }
            _ => None,
        }
    }
}

/// The kernel takes the highest number for "nobody": what is unpacked with it stays root's, and so it is here.
fn owner(id: u32) -> u32 {
    if id == u32::MAX { 0 } else { id }
}

/// The type bits of a mode, and the type in directories.
pub(super) fn file_type(entry: &Entry, whiteout: bool) -> (u16, u8) {
    match entry.kind {
        _ if whiteout => (0o020_000, 3),
        Kind::File { .. } => (0o100_000, 1),
        Kind::Directory { .. } => (0o040_000, 2),
        Kind::CharDevice { .. } | Kind::Whiteout => (0o020_000, 3),
        Kind::BlockDevice { .. } => (0o060_000, 4),
        // A link to a lower layer is shown as what it leads to, so it does not come here.
        Kind::Fifo | Kind::LinkBelow { .. } => (0o010_000, 5),
        Kind::Symlink { .. } => (0o120_000, 7),
    }
}
