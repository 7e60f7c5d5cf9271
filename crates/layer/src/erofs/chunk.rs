//! Where a file's bytes are: chunks of equal size, each at a block of a device or nowhere.
//!
//! A file that lies in one piece is one chunk, whatever its size. One in several pieces has the largest chunks whose borders
//! include those of all pieces.

use crate::Extent;

use super::{BLOCK, BLOCK_BITS};

/// The largest chunk, as a power of two of blocks: what the field in an inode can say.
const MOST_BITS: u32 = 31;
/// A block address that means a hole.
const HOLE: u32 = u32::MAX;
/// Index bytes that a file may have for each so many bytes of data; a block of data needs eight.
const DATA_PER_INDEX: u64 = 32;
/// Index bytes that any file may have.
const ANY_INDEX: u64 = 64 << 10;

/// A file as chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunks {
    /// The base-2 logarithm of the chunk size in blocks.
    pub(super) bits: u32,
    /// How many there are.
    pub(super) count: u64,
}

/// One chunk's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChunkIndex {
    /// 0 is the image itself, 1 the first flat file.
    device: u16,
    block: u32,
}

impl Chunks {
    /// A file in one piece.
    pub(super) fn whole(size: u64) -> Self {
        let bits = (size.div_ceil(BLOCK).next_power_of_two().ilog2()).min(MOST_BITS);
        Self {
            bits,
            count: size.div_ceil(BLOCK << bits),
        }
    }

    /// The chunks of a file of `size` bytes at `extents`; `None` where its bytes lie so that chunks cannot show them, or that too many
    /// would be needed for what there is.
    pub(super) fn of(size: u64, extents: &[Extent]) -> Option<Self> {
        let whole = Self::whole(size);
        let mut bits = whole.bits;
        let mut data = 0;
        for extent in extents {
            let end = extent.at + extent.length;
            let last_block = (extent.offset + extent.length).div_ceil(BLOCK);
            if !extent.offset.is_multiple_of(BLOCK) || last_block >= u64::from(HOLE) {
                return None;
            }
            let borders = [extent.at, if end == size { 0 } else { end }];
            for border in borders.into_iter().filter(|border| *border != 0) {
                if !border.is_multiple_of(BLOCK) {
                    return None;
                }
                bits = bits.min(border.trailing_zeros() - BLOCK_BITS);
            }
            data += extent.length;
        }
        let count = size.div_ceil(BLOCK << bits);
        (count * ChunkIndex::BYTES <= ANY_INDEX.max(data / DATA_PER_INDEX))
            .then_some(Self { bits, count })
    }

    /// The places of the chunks, in order. `device` says which device an extent's flat file is.
    pub(super) fn indexes<'e>(
        self,
        extents: &'e [Extent],
        device: impl Fn(&Extent) -> u16 + 'e,
    ) -> impl Iterator<Item = ChunkIndex> + 'e {
        let mut rest = extents;
        (0..self.count).map(move |number| {
            let at = number * (BLOCK << self.bits);
            while rest.first().is_some_and(|e| e.at + e.length <= at) {
                rest = &rest[1..];
            }
            match rest.first() {
                Some(extent) if extent.at <= at => ChunkIndex {
                    device: device(extent),
                    // Held to 32 bits when the chunks were planned.
                    block: ((extent.offset + at - extent.at) / BLOCK) as u32,
                },
                _ => ChunkIndex {
                    device: 0,
                    block: HOLE,
                },
            }
        })
    }

    /// What the inode says of its chunks: the size, and that indexes are of the long form.
    pub(super) fn format(self) -> u32 {
        const INDEXES: u32 = 0x20;
        self.bits | INDEXES
    }

    /// Bytes that the indexes take.
    pub(super) fn index_bytes(self) -> u64 {
        self.count * ChunkIndex::BYTES
    }
}

impl ChunkIndex {
    /// Bytes of an index; it is aligned to as many.
    pub(super) const BYTES: u64 = 8;

    /// The chunk that begins at `block` of the image's side file or a flat file.
    pub(super) fn at(device: u16, block: u32) -> Self {
        Self { device, block }
    }

    pub(super) fn encode(self) -> [u8; 8] {
        let mut bytes = [0; 8];
        bytes[2..4].copy_from_slice(&self.device.to_le_bytes());
        bytes[4..].copy_from_slice(&self.block.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(offset: u64, length: u64, at: u64) -> Extent {
        Extent {
            flat: 0,
            offset,
            length,
            at,
        }
    }

    fn check(size: u64, extents: &[Extent], expected: Option<(u32, &[u32])>) {
        let chunks = Chunks::of(size, extents);
        let found = chunks.map(|chunks| {
            let indexes = chunks.indexes(extents, |_| 1);
            let blocks: Vec<u32> = indexes.map(|index| index.block).collect();
            (chunks.bits, blocks)
        });
        let expected = expected.map(|(bits, blocks)| (bits, blocks.to_vec()));
        assert_eq!(found, expected, "{size} {extents:?}");
    }

    #[test]
    fn chunks_are_as_large_as_the_pieces_allow() {
        check(1, &[extent(512, 1, 0)], Some((0, &[1])));
        check(513, &[extent(1024, 513, 0)], Some((1, &[2])));
        check(5 << 30, &[extent(0, 5 << 30, 0)], Some((24, &[0])));
        check(1 << 36, &[], Some((27, &[HOLE])));
        check(3 << 40, &[], Some((31, &[HOLE, HOLE, HOLE])));
        let around = [extent(4096, 1024, 0), extent(8192, 100, 2048)];
        check(2148, &around, Some((1, &[8, HOLE, 16])));
        let after = [extent(0, 512, 1 << 20)];
        check(1 << 23, &after, None);
        let behind = [extent(1 << 20, 1 << 20, 1 << 20)];
        check(1 << 21, &behind, Some((11, &[HOLE, 2048])));
    }

    #[test]
    fn what_is_not_aligned_or_too_scattered_is_copied() {
        check(100, &[extent(7, 100, 0)], None);
        check(2000, &[extent(0, 100, 0), extent(512, 100, 1000)], None);
        check(2000, &[extent(0, 100, 0)], None);
        check(1 << 40, &[extent(0, 512, 512)], None);
        check(1 << 20, &[extent(2 << 40, 512, 0)], None);
    }
}
