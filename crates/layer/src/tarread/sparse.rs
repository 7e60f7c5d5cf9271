//! Maps of sparse files: GNU's old format (type `S`) and PAX version 1.0. Versions 0.0 and 0.1 are plain records.

use super::Sparse;
use super::header::{number, positive};
use super::pax::decimal;

/// The map in a header of type `S`, and whether extension blocks follow.
pub(super) fn from_gnu_header(block: &[u8; 512]) -> Result<(Sparse, bool), &'static str> {
    let mut map = Sparse {
        size: positive(&block[483..495], "a sparse file's size")?,
        chunks: Vec::new(),
    };
    add_chunks(&mut map, &block[386..482])?;
    Ok((map, block[482] != 0))
}

/// Adds an extension block's 21 chunks; returns whether another one follows.
pub(super) fn add_gnu_extension(map: &mut Sparse, block: &[u8; 512]) -> Result<bool, &'static str> {
    add_chunks(map, &block[..504])?;
    Ok(block[504] != 0)
}

fn add_chunks(map: &mut Sparse, fields: &[u8]) -> Result<(), &'static str> {
    for field in fields.chunks_exact(24).take_while(|f| f[0] != 0) {
        number(&field[..12])?;
        map.chunks.push((
            positive(&field[..12], "a sparse chunk")?,
            positive(&field[12..], "a sparse chunk")?,
        ));
    }
    Ok(())
}

/// The chunks must be in order, inside the file, and as long as what is stored.
pub(super) fn check(map: &Sparse, stored: u64) -> Result<(), &'static str> {
    const WRONG: &str = "a sparse file's map does not fit its data";
    let (mut end, mut total) = (0u64, 0u64);
    for (at, length) in &map.chunks {
        if *at < end {
            return Err(WRONG);
        }
        end = at.checked_add(*length).ok_or(WRONG)?;
        total = total.checked_add(*length).ok_or(WRONG)?;
    }
    if end > map.size || total != stored {
        Err(WRONG)
    } else {
        Ok(())
    }
}

/// Reads a version 1.0 map: decimal numbers, one a line, first their count; padded to whole blocks.
#[derive(Debug, Default)]
pub(super) struct MapParser {
    line: Vec<u8>,
    count: Option<u64>,
    numbers: Vec<u64>,
}

impl MapParser {
    pub(super) fn is_done(&self) -> bool {
        self.count
            .is_some_and(|count| self.numbers.len() as u64 >= count.saturating_mul(2))
    }

    /// How many chunks were read.
    pub(super) fn len(&self) -> usize {
        self.numbers.len() / 2
    }

    pub(super) fn add(&mut self, block: &[u8; 512]) -> Result<(), &'static str> {
        for byte in block {
            if self.is_done() {
                return Ok(());
            }
            if *byte != b'\n' {
                self.line.push(*byte);
                continue;
            }
            let value = decimal(&self.line).filter(|_| !self.line.is_empty());
            let value = value.ok_or("a sparse file's map is not made of numbers")?;
            self.line.clear();
            match self.count {
                None => self.count = Some(value),
                Some(_) => self.numbers.push(value),
            }
        }
        if self.line.len() > 20 {
            Err("a sparse file's map is not made of numbers")
        } else {
            Ok(())
        }
    }

    pub(super) fn into_chunks(self) -> Vec<(u64, u64)> {
        self.numbers.chunks_exact(2).map(|p| (p[0], p[1])).collect()
    }
}
