//! Writing an image from front to back.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::BLOCK;
use super::chunk::{ChunkIndex, Chunks};
use super::dirent::{self, Name};
use super::inode::Data;
use super::layout::{Layout, Place, names};
use super::stack::{Item, Stack};
use super::superblock::{DEVICES, SUPERBLOCK, Superblock};
use crate::{Extent, Kind};

/// Writes the image to `path`, which must not exist.
pub(super) fn write(stack: &Stack<'_>, layout: &Layout, path: &Path) -> io::Result<()> {
    let mut image = Image {
        out: BufWriter::with_capacity(1 << 18, File::create_new(path)?),
        at: 0,
    };
    image.pad_to(SUPERBLOCK)?;
    image.put(&superblock(layout).encode())?;
    image.pad_to(DEVICES)?;
    image.put(&layout.devices.encode())?;
    for (number, (item, place)) in stack.items.iter().zip(&layout.places).enumerate() {
        image.pad_to(place.at)?;
        inode(&mut image, layout, item, place, number)?;
    }
    image.pad_to(u64::from(layout.xattr_block) * BLOCK)?;
    image.put(layout.shared.area())?;
    image.pad_to(u64::from(layout.data_block) * BLOCK)?;
    for (number, (item, place)) in stack.items.iter().zip(&layout.places).enumerate() {
        let contents = match place.data {
            Data::Blocks(_) => contents(layout, item, number),
            Data::Inline(_) if place.size >= BLOCK => {
                let mut contents = contents(layout, item, number);
                contents.truncate((place.size / BLOCK * BLOCK) as usize);
                contents
            }
            _ => continue,
        };
        image.put(&contents)?;
        image.pad_to(image.at.next_multiple_of(BLOCK))?;
    }
    image.out.flush()
}

fn superblock(layout: &Layout) -> Superblock {
    Superblock {
        // The root comes right behind at most 10,000 device slots.
        root: layout.places[0].inode_number() as u16,
        inodes: layout.places.len() as u64,
        epoch: (layout.epoch.seconds, layout.epoch.nanos),
        blocks: layout.blocks,
        xattr_block: layout.xattr_block,
        devices: layout.devices.count(),
    }
}

/// An inode and what directly follows it.
fn inode(
    image: &mut Image,
    layout: &Layout,
    item: &Item<'_>,
    place: &Place,
    number: usize,
) -> io::Result<()> {
    let inode = place.inode(item);
    image.put(&inode.encode(layout.epoch, number as u32 + 1))?;
    let body = layout.shared.body(item).map_err(io::Error::other)?;
    image.put(&body)?;
    match place.data {
        Data::None | Data::Blocks(_) => Ok(()),
        Data::Inline(_) => {
            let contents = contents(layout, item, number);
            image.put(&contents[(place.size / BLOCK * BLOCK) as usize..])
        }
        Data::Chunks(chunks) => {
            image.pad_to(image.at.next_multiple_of(ChunkIndex::BYTES))?;
            chunk_indexes(image, layout, item, place, chunks)
        }
    }
}

fn chunk_indexes(
    image: &mut Image,
    layout: &Layout,
    item: &Item<'_>,
    place: &Place,
    chunks: Chunks,
) -> io::Result<()> {
    if let (Some(block), Some(device)) = (place.side, layout.devices.side()) {
        let step = 1u64 << chunks.bits;
        return (0..chunks.count).try_for_each(|chunk| {
            let block = u64::from(block) + chunk * step;
            image.put(&ChunkIndex::at(device, block as u32).encode())
        });
    }
    let Kind::File { extents, .. } = &item.entry.kind else {
        return Ok(());
    };
    let device = |extent: &Extent| {
        let flat = item.flats.get(extent.flat as usize);
        flat.map_or(0, |flat| layout.devices.number(flat))
    };
    let mut indexes = chunks.indexes(extents, device);
    indexes.try_for_each(|index| image.put(&index.encode()))
}

/// The contents of a directory or a symbolic link.
fn contents(layout: &Layout, item: &Item<'_>, number: usize) -> Vec<u8> {
    match &item.entry.kind {
        Kind::Symlink { target } => target.clone(),
        Kind::Directory { .. } => {
            let names: Vec<Name<'_>> = names(item)
                .map(|(name, child)| {
                    let child = child.map_or(number, |child| child as usize);
                    Name {
                        name,
                        inode: layout.places[child].inode_number(),
                        file_type: layout.places[child].file_type,
                    }
                })
                .collect();
            dirent::encode(&names)
        }
        _ => Vec::new(),
    }
}

/// The image file, which knows how much of it is written.
struct Image {
    out: BufWriter<File>,
    at: u64,
}

impl Image {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.at += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    /// Writes zeros up to `at`.
    fn pad_to(&mut self, at: u64) -> io::Result<()> {
        const ZEROS: [u8; 512] = [0; 512];
        while self.at < at {
            let part = (at - self.at).min(ZEROS.len() as u64) as usize;
            self.put(&ZEROS[..part])?;
        }
        Ok(())
    }
}
