//! The superblock, and the table of the devices that files' bytes lie in.

use std::collections::HashMap;

use buildyard_model::FlatId;

use super::{BLOCK_BITS, ErofsError, unfit};

/// Where the superblock begins.
pub(super) const SUPERBLOCK: u64 = 1024;
/// Where the device table begins: right behind the superblock.
pub(super) const DEVICES: u64 = SUPERBLOCK + 128;
/// Bytes of a device's slot.
pub(super) const SLOT: u64 = 128;
/// More would push the root directory out of the 16 bits that the superblock has for its number.
const MOST_DEVICES: usize = 10_000;

/// What the superblock says.
pub(super) struct Superblock {
    pub(super) root: u16,
    pub(super) inodes: u64,
    /// The time of compact inodes: seconds and nanoseconds.
    pub(super) epoch: (i64, u32),
    pub(super) blocks: u32,
    pub(super) xattr_block: u32,
    pub(super) devices: u16,
}

impl Superblock {
    pub(super) fn encode(&self) -> [u8; 128] {
        const MAGIC: u32 = 0xe0f5_e1e2;
        /// Times of inodes are modification times.
        const COMPAT_MTIME: u32 = 2;
        const INCOMPAT_CHUNKED_FILE: u32 = 4;
        const INCOMPAT_DEVICE_TABLE: u32 = 8;
        let incompat = match self.devices {
            0 => INCOMPAT_CHUNKED_FILE,
            _ => INCOMPAT_CHUNKED_FILE | INCOMPAT_DEVICE_TABLE,
        };
        let mut bytes = [0; 128];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &MAGIC.to_le_bytes());
        put(8, &COMPAT_MTIME.to_le_bytes());
        put(12, &[BLOCK_BITS as u8]);
        put(14, &self.root.to_le_bytes());
        put(16, &self.inodes.to_le_bytes());
        put(24, &self.epoch.0.to_le_bytes());
        put(32, &self.epoch.1.to_le_bytes());
        put(36, &self.blocks.to_le_bytes());
        // Inodes are numbered from the image's beginning, so the metadata area begins at block 0.
        put(44, &self.xattr_block.to_le_bytes());
        put(80, &incompat.to_le_bytes());
        put(86, &self.devices.to_le_bytes());
        put(88, &((DEVICES / SLOT) as u16).to_le_bytes());
        bytes
    }
}

/// The devices of an image: flat files in the order of their first use, then the side file.
#[derive(Debug, Default)]
pub(super) struct Devices {
    flats: Vec<FlatId>,
    /// Blocks of each that are used.
    blocks: Vec<u32>,
    numbers: HashMap<FlatId, u16>,
    side: Option<u32>,
}

impl Devices {
    /// Uses `blocks` blocks of a flat file.
    pub(super) fn using(&mut self, flat: FlatId, blocks: u32) -> Result<(), ErofsError> {
        let fresh = self.flats.len();
        if fresh >= MOST_DEVICES && !self.numbers.contains_key(&flat) {
            return Err(unfit(b"", "its bytes lie in over 10,000 flat files"));
        }
        let number = *self.numbers.entry(flat).or_insert(fresh as u16 + 1);
        let index = usize::from(number) - 1;
        if index == fresh {
            self.flats.push(flat);
            self.blocks.push(0);
        }
        self.blocks[index] = self.blocks[index].max(blocks);
        Ok(())
    }

    /// The number of a flat file that is used.
    pub(super) fn number(&self, flat: &FlatId) -> u16 {
        self.numbers.get(flat).copied().unwrap_or_default()
    }

    pub(super) fn set_side(&mut self, blocks: Option<u32>) {
        self.side = blocks;
    }

    /// The number of the side file, if there is one.
    pub(super) fn side(&self) -> Option<u16> {
        self.side.map(|_| self.flats.len() as u16 + 1)
    }

    pub(super) fn flats(&self) -> &[FlatId] {
        &self.flats
    }

    pub(super) fn count(&self) -> u16 {
        self.flats.len() as u16 + u16::from(self.side.is_some())
    }

    /// The slots of the table. The tag is the flat file's name, for people: what is mounted is said when mounting.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut table = Vec::with_capacity(usize::from(self.count()) * SLOT as usize);
        let flats = self.flats.iter().map(FlatId::to_string).zip(&self.blocks);
        let side = self.side.as_ref().map(|blocks| ("side".to_owned(), blocks));
        for (tag, blocks) in flats.chain(side) {
            let mut slot = [0; SLOT as usize];
            let tag = &tag.as_bytes()[..tag.len().min(64)];
            slot[..tag.len()].copy_from_slice(tag);
            slot[64..68].copy_from_slice(&blocks.to_le_bytes());
            table.extend_from_slice(&slot);
        }
        table
    }
}
