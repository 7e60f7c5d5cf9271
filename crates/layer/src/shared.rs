//! One table of contents in memory for all who have the same bytes of it: in a process that is coordinator and worker, both
//! keep the layers they used last.
//!
//! Known by the hash of the encoded form, so what is shared is equal in everything, extents too. Kept alive by its users
//! alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use buildyard_model::Digest;

use crate::{Toc, TocError};

/// Below so many names nobody looks which of them are unused.
const FEW: usize = 256;

#[derive(Default)]
struct Known {
    tocs: HashMap<Digest, Weak<Toc>>,
    /// Unused names are removed once there are so many.
    look_at: usize,
}

static KNOWN: Mutex<Option<Known>> = Mutex::new(None);

fn known() -> MutexGuard<'static, Option<Known>> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The one that others have, or `toc` for others to have.
fn shared(name: Digest, toc: Arc<Toc>) -> Arc<Toc> {
    let mut known = known();
    let known = known.get_or_insert_default();
    if let Some(there) = known.tocs.get(&name).and_then(Weak::upgrade) {
        return there;
    }
    if known.tocs.len() >= known.look_at {
        known.tocs.retain(|_, toc| toc.strong_count() > 0);
        known.look_at = FEW.max(known.tocs.len() * 2);
    }
    known.tocs.insert(name, Arc::downgrade(&toc));
    toc
}

impl Toc {
    /// [`Toc::decode`], but where somebody in this process has a TOC of these bytes, it is that one.
    ///
    /// # Errors
    /// Those of [`Toc::decode`].
    pub fn decode_shared(bytes: &[u8]) -> Result<Arc<Self>, TocError> {
        let name = Digest::of(bytes);
        let there = known()
            .as_ref()
            .and_then(|known| known.tocs.get(&name).and_then(Weak::upgrade));
        match there {
            Some(there) => Ok(there),
            None => Ok(shared(name, Arc::new(Self::decode(bytes)?))),
        }
    }

    /// [`Toc::encode`]; whoever decodes these bytes by [`Toc::decode_shared`] gets this TOC while it is in use.
    pub fn encode_shared(self: &Arc<Self>) -> Vec<u8> {
        let bytes = self.encode();
        shared(Digest::of(&bytes), self.clone());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use buildyard_model::FlatId;

    fn toc(text: &str) -> Arc<Toc> {
        Arc::new(Toc {
            flats: vec![FlatId::from(Digest::of(text))],
            ..Toc::default()
        })
    }

    #[test]
    fn the_same_bytes_are_one_toc_while_it_is_used() {
        let made = toc("one");
        let bytes = made.encode_shared();
        let read = Toc::decode_shared(&bytes).unwrap();
        assert!(Arc::ptr_eq(&made, &read));
        let weak = Arc::downgrade(&made);
        drop((made, read));
        assert!(weak.upgrade().is_none(), "nobody else keeps it");
        assert_eq!(*Toc::decode_shared(&bytes).unwrap(), *toc("one"));
    }

    #[test]
    fn other_bytes_are_another_one_and_damaged_ones_an_error() {
        let made = toc("two");
        let other = Toc::decode_shared(&toc("three").encode()).unwrap();
        assert_ne!(other, made);
        let mut damaged = made.encode_shared();
        damaged.truncate(damaged.len() - 1);
        assert!(Toc::decode_shared(&damaged).is_err());
    }

    #[test]
    fn unused_names_do_not_gather() {
        for number in 0..10 * FEW {
            toc(&number.to_string()).encode_shared();
        }
        let known = known();
        let names = known.as_ref().map_or(0, |known| known.tocs.len());
        assert!(names <= 2 * FEW, "{names}");
    }
}
