//! Flat files on their way between machines: pieces of at most [`PIECE`] bytes, each one zstd frame.

use std::io;
use std::ops::Range;

use buildyard_model::FlatId;

use crate::{ExtentSource, FlatFiles, NamedRanges, Toc, ranges_of};

/// Uncompressed size of a piece in bytes; the last one of a range may be shorter.
pub const PIECE: u64 = 512 << 10;

/// zstd's fastest usual level: a local network is faster than a better ratio.
const LEVEL: i32 = 1;

/// Cuts ranges into pieces: offset and length of each.
pub fn pieces(ranges: Vec<Range<u64>>) -> impl Iterator<Item = (u64, u64)> {
    ranges.into_iter().flat_map(|range| {
        let starts =
            (range.start..range.end).step_by(usize::try_from(PIECE).expect("a piece is small"));
        starts.map(move |start| (start, PIECE.min(range.end - start)))
    })
}

/// Reads and compresses one piece.
pub fn read_piece(
    flats: &FlatFiles,
    flat: FlatId,
    offset: u64,
    length: u64,
) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    flats.read_at(flat, offset, &mut bytes)?;
    zstd::bulk::compress(&bytes, LEVEL)
}

/// The bytes of a compressed piece; more than [`PIECE`] are an error.
pub fn open_piece(data: &[u8]) -> io::Result<Vec<u8>> {
    zstd::bulk::decompress(data, usize::try_from(PIECE).expect("a piece is small"))
}

impl FlatFiles {
    /// The ranges that `toc` names and that are not here.
    pub fn missing_of(&self, toc: &Toc) -> io::Result<NamedRanges> {
        let mut missing = Vec::new();
        for (flat, ranges) in ranges_of(toc) {
            let absent = self.missing(flat, &ranges)?;
            if !absent.is_empty() {
                missing.push((flat, absent));
            }
        }
        Ok(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_into_pieces() {
        let cut: Vec<_> = pieces(vec![0..10, 100..100, 1 << 20..(1 << 20) + PIECE + 1]).collect();
        assert_eq!(cut, [(0, 10), (1 << 20, PIECE), ((1 << 20) + PIECE, 1)]);
    }

    #[test]
    fn a_piece_survives_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let flats = FlatFiles::new(dir.path()).unwrap();
        let flat = FlatId::from_bytes([7; 32]);
        let writer = flats.writer().unwrap();
        writer.append_file(&mut "hello".as_bytes()).unwrap();
        writer.commit(flat).unwrap();
        let piece = read_piece(&flats, flat, 1, 4).unwrap();
        assert_eq!(open_piece(&piece).unwrap(), b"ello");
    }
}
