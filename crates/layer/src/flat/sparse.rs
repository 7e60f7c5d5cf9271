//! Sparse copies: the bytes at their offsets in `<id>.part`, the ranges that are really there in `<id>.ranges`.
//!
//! `<id>.ranges` is a log of 24-byte records (start, end, check word), appended only after the bytes are on disk. A
//! torn or damaged record doesn't count, so after a crash a range is at worst missing, never wrongly there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::FallocateFlags;

use super::absent_as_none;
use super::writer::ALIGNMENT;
use crate::Ranges;

const RECORD: usize = 24;
const CHECK: u64 = 0x6279_666c_6174_7267;

/// What is known of the sparse copy at `part`. Nothing, where it doesn't exist.
pub(super) fn known_ranges(part: &Path) -> io::Result<Ranges> {
    let Some(log) = absent_as_none(fs::read(part.with_extension("ranges")))? else {
        return Ok(Ranges::default());
    };
    let Some(file) = absent_as_none(fs::metadata(part))? else {
        return Ok(Ranges::default());
    };
    // What lies behind the end of the file was cut off by somebody.
    let end = super::whole_blocks(file.len());
    let records = log.chunks_exact(RECORD).filter_map(decode);
    let there = records.map(|range| range.start..range.end.min(end));
    Ok(there.filter(|range| !range.is_empty()).collect())
}

/// Writes the bytes, then records their ranges. The caller holds the directory's lock. The file ends with a whole block, as a
/// whole flat file does: kernels refuse to read part of one as an image's device.
pub(super) fn write(part: &Path, ranges: &[(u64, &[u8])]) -> io::Result<()> {
    if let Some(shard) = part.parent() {
        fs::create_dir_all(shard)?;
    }
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(part)?;
    let mut records = Vec::with_capacity(ranges.len() * RECORD);
    for (offset, bytes) in ranges {
        let end = offset
            .checked_add(bytes.len() as u64)
            .ok_or(io::ErrorKind::InvalidInput)?;
        file.write_all_at(bytes, *offset)?;
        records.extend(encode(&(*offset..end)));
        let padding = end.next_multiple_of(ALIGNMENT) - end;
        if padding > 0 && file.metadata()?.len() < end + padding {
            // Never shortens the file, whoever lengthens it meanwhile.
            rustix::fs::fallocate(&file, FallocateFlags::empty(), end, padding)?;
        }
    }
    file.sync_data()?;
    append(&part.with_extension("ranges"), &records)
}

/// Removes the copy: its ranges first, so that no other copy ever takes them for its own.
pub(super) fn remove(part: &Path) -> io::Result<()> {
    absent_as_none(fs::remove_file(part.with_extension("ranges")))?;
    absent_as_none(fs::remove_file(part))?;
    Ok(())
}

fn append(log: &Path, records: &[u8]) -> io::Result<()> {
    let mut file: File = OpenOptions::new().append(true).create(true).open(log)?;
    file.lock()?;
    let whole = file.metadata()?.len() / RECORD as u64 * RECORD as u64;
    // Cuts off a record that a crash left half written; later ones would not be found behind it.
    file.set_len(whole)?;
    file.write_all(records)
}

fn encode(range: &Range<u64>) -> impl Iterator<Item = u8> {
    [range.start, range.end, check(range.start, range.end)]
        .into_iter()
        .flat_map(u64::to_le_bytes)
}

fn decode(record: &[u8]) -> Option<Range<u64>> {
    let mut words = record
        .chunks_exact(8)
        .map(|w| w.try_into().map(u64::from_le_bytes).ok());
    let (start, end, sum) = (words.next()??, words.next()??, words.next()??);
    (sum == check(start, end) && start < end).then_some(start..end)
}

fn check(start: u64, end: u64) -> u64 {
    start.rotate_left(32) ^ end.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ CHECK
}
