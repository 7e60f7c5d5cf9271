//! Extended attributes: behind their inode, or once for all inodes that have the same one.

use std::collections::{BTreeMap, HashMap};

use super::stack::Item;
use super::{ErofsError, unfit};

/// Bytes of what comes before an inode's attributes.
pub(super) const HEADER: usize = 12;
/// The count in an inode has 16 bits, in units of four bytes.
const MOST_BYTES: usize = HEADER + 4 * (u16::MAX as usize - 1);
/// How many shared attributes an inode can have.
const MOST_SHARED: usize = u8::MAX as usize;

/// The prefixes that the format has numbers for; names have no other.
const PREFIXES: [(&[u8], u8); 5] = [
    (b"user.", 1),
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"trusted.", 4),
    (b"security.", 6),
];

/// An attribute as it is stored.
type Stored = Vec<u8>;

/// The attributes that inodes share, in the order of their first use.
#[derive(Debug, Default)]
pub(super) struct Shared {
    area: Vec<u8>,
    /// Where in the area each begins, in units of four bytes.
    places: HashMap<Stored, u32>,
}

impl Shared {
    /// Finds what several items have.
    pub(super) fn of(items: &[Item<'_>]) -> Result<Self, ErofsError> {
        let mut counts: HashMap<Stored, usize> = HashMap::new();
        let mut order = Vec::new();
        for item in items {
            for stored in all(item)? {
                let count = counts.entry(stored.clone()).or_default();
                *count += 1;
                // The second time tells; the order is the same on every machine.
                if *count == 2 {
                    order.push(stored);
                }
            }
        }
        let mut shared = Self::default();
        for stored in order {
            let place = (shared.area.len() / 4) as u32;
            shared.area.extend_from_slice(&stored);
            shared.places.insert(stored, place);
        }
        Ok(shared)
    }

    /// The area that holds them.
    pub(super) fn area(&self) -> &[u8] {
        &self.area
    }

    /// What is stored behind an item's inode; nothing where it has no attributes.
    pub(super) fn body(&self, item: &Item<'_>) -> Result<Vec<u8>, ErofsError> {
        let all = all(item)?;
        if all.is_empty() {
            return Ok(Vec::new());
        }
        let (mut references, mut own) = (Vec::new(), Vec::new());
        for stored in all {
            match self.places.get(&stored) {
                Some(place) if references.len() < 4 * MOST_SHARED => {
                    references.extend_from_slice(&place.to_le_bytes())
                }
                _ => own.extend_from_slice(&stored),
            }
        }
        let mut body = vec![0; HEADER];
        body[4] = (references.len() / 4) as u8;
        body.extend_from_slice(&references);
        body.extend_from_slice(&own);
        if body.len() > MOST_BYTES {
            return Err(unfit(
                &item.path,
                "its extended attributes have over 256 KiB",
            ));
        }
        Ok(body)
    }
}

/// An item's attributes as they are stored, overlayfs's mark of an opaque directory among them.
fn all(item: &Item<'_>) -> Result<Vec<Stored>, ErofsError> {
    let mut stored = Vec::new();
    if item.whiteout {
        return Ok(stored);
    }
    if item.opaque {
        stored.push(store(&item.path, b"trusted.overlay.opaque", b"y")?);
    }
    let xattrs: &BTreeMap<Vec<u8>, Vec<u8>> = &item.entry.xattrs;
    for (name, value) in xattrs {
        stored.push(store(&item.path, name, value)?);
    }
    Ok(stored)
}

fn store(path: &[u8], name: &[u8], value: &[u8]) -> Result<Stored, ErofsError> {
    let known = PREFIXES.iter().find_map(|(prefix, number)| {
        let rest = name.strip_prefix(*prefix)?;
        // The names of access lists are complete; behind the others something must follow.
        (prefix.ends_with(b".") != rest.is_empty()).then_some((rest, *number))
    });
    let Some((rest, number)) = known else {
        return Err(unfit(
            path,
            "it has an extended attribute in a namespace that file systems don't store",
        ));
    };
    let (Ok(length), Ok(size)) = (u8::try_from(rest.len()), u16::try_from(value.len())) else {
        return Err(unfit(
            path,
            "an extended attribute's name is longer than 255 bytes, or its value than 65,535",
        ));
    };
    let mut stored = vec![length, number];
    stored.extend_from_slice(&size.to_le_bytes());
    stored.extend_from_slice(rest);
    stored.extend_from_slice(value);
    stored.resize(stored.len().next_multiple_of(4), 0);
    Ok(stored)
}
