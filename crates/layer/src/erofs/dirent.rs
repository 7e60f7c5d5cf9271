//! Directories: blocks of entries sorted by name, the entries in front and the names behind them.

use super::BLOCK;

/// Bytes of an entry without its name.
const ENTRY: usize = 12;

/// A name in a directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Name<'a> {
    pub(super) name: &'a [u8],
    /// The number of the inode.
    pub(super) inode: u64,
    /// What it is, as the kernel numbers types.
    pub(super) file_type: u8,
}

/// Cuts sorted names into blocks: how many names each has, and the bytes of the last one.
fn cut<'a>(names: impl Iterator<Item = &'a [u8]>) -> (Vec<usize>, usize) {
    let mut blocks = Vec::new();
    let (mut count, mut used) = (0, 0);
    for name in names {
        let needed = ENTRY + name.len();
        if used + needed > BLOCK as usize {
            blocks.push(count);
            (count, used) = (0, 0);
        }
        count += 1;
        used += needed;
    }
    blocks.push(count);
    (blocks, used)
}

/// The bytes that a directory with these sorted names takes.
pub(super) fn size<'a>(names: impl Iterator<Item = &'a [u8]>) -> u64 {
    let (blocks, last) = cut(names);
    (blocks.len() as u64 - 1) * BLOCK + last as u64
}

/// The directory as it is stored. All blocks but the last are filled with zeros.
pub(super) fn encode(names: &[Name<'_>]) -> Vec<u8> {
    let (blocks, _) = cut(names.iter().map(|name| name.name));
    let mut bytes = Vec::new();
    let mut rest = names;
    for count in blocks {
        bytes.resize(bytes.len().next_multiple_of(BLOCK as usize), 0);
        let (these, others) = rest.split_at(count);
        let mut offset = count * ENTRY;
        for name in these {
            bytes.extend_from_slice(&name.inode.to_le_bytes());
            bytes.extend_from_slice(&(offset as u16).to_le_bytes());
            bytes.extend_from_slice(&[name.file_type, 0]);
            offset += name.name.len();
        }
        for name in these {
            bytes.extend_from_slice(name.name);
        }
        rest = others;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_filled_and_a_name_is_never_split() {
        let long = [b'n'; 255];
        let names: Vec<&[u8]> = vec![b".", b"..", b"a", &long, &long];
        // 3 short ones and one long one: 36 + 4 + 267 bytes; the next long one doesn't fit.
        assert_eq!(size(names.iter().copied()), 512 + 267);
        let entries: Vec<Name<'_>> = names
            .iter()
            .map(|name| Name {
                name,
                inode: 7,
                file_type: 1,
            })
            .collect();
        let bytes = encode(&entries);
        assert_eq!(bytes.len(), 512 + 267);
        assert_eq!(bytes[8], 48, "four entries come before the first name");
        assert_eq!(&bytes[48..52], b"...a");
        assert_eq!(bytes[307..512], [0; 205]);
        assert_eq!(bytes[520], 12);
        assert_eq!(bytes[524..], long);
    }
}
