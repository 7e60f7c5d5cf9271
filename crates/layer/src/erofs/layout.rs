//! Where everything is in an image: computed before the first byte is written, since directories name inodes by their place.

use std::collections::BTreeMap;

use super::chunk::{ChunkIndex, Chunks};
use super::inode::{Data, INODE_UNIT, Inode, file_type};
use super::side::Side;
use super::stack::{Item, Stack};
use super::superblock::{DEVICES, Devices, SLOT};
use super::xattr::Shared;
use super::{BLOCK, ErofsError, dirent, unfit};
use crate::{ExtentSource, Kind, Time};

/// The places of everything.
pub(super) struct Layout {
    /// Those of the stack's items, in the same order.
    pub(super) places: Vec<Place>,
    pub(super) devices: Devices,
    pub(super) shared: Shared,
    /// The time that compact inodes have.
    pub(super) epoch: Time,
    /// The blocks at which shared attributes and the blocks of directories begin, and how many blocks there are.
    pub(super) xattr_block: u32,
    pub(super) data_block: u32,
    pub(super) blocks: u32,
}

/// Where an item is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Byte at which its inode begins.
    pub(super) at: u64,
    pub(super) size: u64,
    pub(super) data: Data,
    pub(super) xattr_bytes: usize,
    /// What directories say it is.
    pub(super) file_type: u8,
    /// Its first block in the side file, for a file that lies there.
    pub(super) side: Option<u32>,
}

impl Place {
    pub(super) fn inode_number(&self) -> u64 {
        self.at / INODE_UNIT
    }

    pub(super) fn inode<'a>(&self, item: &Item<'a>) -> Inode<'a> {
        Inode {
            entry: item.entry,
            whiteout: item.whiteout,
            links: item.links,
            size: self.size,
            data: self.data,
            xattr_bytes: self.xattr_bytes,
        }
    }
}

impl Layout {
    /// Lays a stack out. Files whose bytes chunks cannot show are copied to the side file now.
    pub(super) fn of(
        stack: &Stack<'_>,
        source: &dyn ExtentSource,
        side: &mut Side<'_>,
    ) -> Result<Self, ErofsError> {
        let mut devices = Devices::default();
        let shared = Shared::of(&stack.items)?;
        let epoch = commonest_time(&stack.items);
        let mut places = Vec::with_capacity(stack.items.len());
        for item in &stack.items {
            let mut place = Place {
                at: 0,
                size: contents_size(item),
                data: Data::None,
                xattr_bytes: shared.body(item)?.len(),
                file_type: file_type(item.entry, item.whiteout).1,
                side: None,
            };
            check_device(item)?;
            plan_file(item, &mut place, &mut devices, source, side)?;
            places.push(place);
        }
        devices.set_side(side.blocks());

        let mut end = DEVICES + u64::from(devices.count()) * SLOT;
        for (item, place) in stack.items.iter().zip(&mut places) {
            end = place_inode(item, place, epoch, end);
        }
        let xattr_start = end.div_ceil(BLOCK);
        let data_start = xattr_start + (shared.area().len() as u64).div_ceil(BLOCK);
        let mut blocks = data_start;
        for place in &mut places {
            blocks = place_blocks(place, blocks);
        }
        // The highest number means a hole.
        let fits = |block: u64| u32::try_from(block).ok().filter(|b| *b != u32::MAX);
        let too_large = || unfit(b"", "its metadata have over 2 TiB");
        Ok(Self {
            places,
            devices,
            shared,
            epoch,
            xattr_block: fits(xattr_start).ok_or_else(too_large)?,
            data_block: fits(data_start).ok_or_else(too_large)?,
            blocks: fits(blocks).ok_or_else(too_large)?,
        })
    }
}

/// The modification time that most items have, the earliest of those that as many have: their inodes are half as long.
fn commonest_time(items: &[Item<'_>]) -> Time {
    let mut counts: BTreeMap<Time, usize> = BTreeMap::new();
    for item in items {
        *counts.entry(item.entry.mtime).or_default() += 1;
    }
    let best = counts
        .into_iter()
        .max_by_key(|(time, count)| (*count, std::cmp::Reverse(*time)));
    best.map(|(time, _)| time).unwrap_or_default()
}

/// The names in a directory, its own and its parent's among them, sorted.
pub(super) fn names<'s>(item: &'s Item<'_>) -> impl Iterator<Item = (&'s [u8], Option<u32>)> {
    let dots: [(&[u8], Option<u32>); 2] = [(b".", None), (b"..", Some(item.parent))];
    // Names such as `-` and `+` sort before the dots.
    let before = item.children.partition_point(|(name, _)| *name < &b"."[..]);
    let between = item
        .children
        .partition_point(|(name, _)| *name < &b".."[..]);
    let part = |range: std::ops::Range<usize>| {
        item.children[range]
            .iter()
            .map(|(name, child)| (*name, Some(*child)))
    };
    part(0..before)
        .chain([dots[0]])
        .chain(part(before..between))
        .chain([dots[1]])
        .chain(part(between..item.children.len()))
}

fn contents_size(item: &Item<'_>) -> u64 {
    match &item.entry.kind {
        _ if item.whiteout => 0,
        Kind::Directory { .. } => dirent::size(names(item).map(|(name, _)| name)),
        Kind::Symlink { target } => target.len() as u64,
        Kind::File { size, .. } => *size,
        _ => 0,
    }
}

fn check_device(item: &Item<'_>) -> Result<(), ErofsError> {
    match item.entry.kind {
        Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor }
            if major >= 1 << 12 || minor >= 1 << 20 =>
        {
            Err(unfit(
                &item.path,
                "Linux has device numbers up to 4095:1048575",
            ))
        }
        _ => Ok(()),
    }
}

fn plan_file(
    item: &Item<'_>,
    place: &mut Place,
    devices: &mut Devices,
    source: &dyn ExtentSource,
    side: &mut Side<'_>,
) -> Result<(), ErofsError> {
    let (false, Kind::File { size, extents, .. }) = (item.whiteout, &item.entry.kind) else {
        return Ok(());
    };
    if *size == 0 {
        return Ok(());
    }
    let Some(chunks) = Chunks::of(*size, extents) else {
        place.side = Some(side.put(item, source)?);
        place.data = Data::Chunks(Chunks::whole(*size));
        return Ok(());
    };
    place.data = Data::Chunks(chunks);
    for extent in extents {
        let Some(flat) = item.flats.get(extent.flat as usize) else {
            return Err(unfit(&item.path, "its bytes are in no flat file"));
        };
        let end = (extent.offset + extent.length).div_ceil(BLOCK);
        // Held to 32 bits when the chunks were planned.
        devices.using(*flat, end as u32)?;
    }
    Ok(())
}

/// Places an inode with all that follows it directly, at or after `end`, and returns where that ends.
fn place_inode(item: &Item<'_>, place: &mut Place, epoch: Time, end: u64) -> u64 {
    let own = place.inode(item).bytes(epoch);
    let body = own + place.xattr_bytes as u64;
    let named = item.is_directory() || matches!(item.entry.kind, Kind::Symlink { .. });
    let tail = place.size % BLOCK;
    let mut at = end.next_multiple_of(INODE_UNIT);
    // The kernel reads an inode, and what is inline with it, out of one block.
    let mut together = own;
    if named && !item.whiteout {
        let inline =
            tail != 0 && body + tail <= BLOCK && (item.is_directory() || tail == place.size);
        place.data = if inline {
            Data::Inline(0)
        } else {
            Data::Blocks(0)
        };
        together = if inline { body + tail } else { own };
    }
    if at / BLOCK != (at + together - 1) / BLOCK {
        at = at.next_multiple_of(BLOCK);
    }
    place.at = at;
    match place.data {
        Data::Inline(_) => at + together,
        Data::Chunks(chunks) => {
            (at + body).next_multiple_of(ChunkIndex::BYTES) + chunks.index_bytes()
        }
        Data::None | Data::Blocks(_) => at + body,
    }
}

/// Places the blocks of a directory or link target from `block` on, and returns the next free one.
fn place_blocks(place: &mut Place, block: u64) -> u64 {
    // Held to 32 bits by the caller, by way of the last block.
    let start = block as u32;
    match &mut place.data {
        Data::Blocks(at) => {
            *at = start;
            block + place.size.div_ceil(BLOCK)
        }
        Data::Inline(at) => {
            *at = start;
            block + place.size / BLOCK
        }
        Data::None | Data::Chunks(_) => block,
    }
}
