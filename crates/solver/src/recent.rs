//! The tables of contents that were used last, in memory.

use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard};

use buildyard_layer::Toc;
use lru::LruCache;

/// How many entries (paths) all TOCs in one [`RecentTocs`] may have together; an entry takes about 250 bytes. One TOC is
/// kept, whatever its size.
pub const RECENT_ENTRIES: usize = 120_000;

/// TOCs by whatever they are asked for, bounded by the number of their entries.
pub struct RecentTocs<K: Hash + Eq>(Mutex<Kept<K>>);

struct Kept<K: Hash + Eq> {
    tocs: LruCache<K, Arc<Toc>>,
    entries: usize,
}

/// What a TOC counts for: one without entries takes room too.
fn weight(toc: &Toc) -> usize {
    toc.entries.len() + 1
}

impl<K: Hash + Eq> Default for RecentTocs<K> {
    fn default() -> Self {
        Self(Mutex::new(Kept {
            tocs: LruCache::unbounded(),
            entries: 0,
        }))
    }
}

impl<K: Hash + Eq> RecentTocs<K> {
    /// The TOC of this name, which is thereby used.
    pub fn get<Q>(&self, name: &Q) -> Option<Arc<Toc>>
    where
        K: std::borrow::Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.lock().tocs.get(name).cloned()
    }

    /// Keeps a TOC, in place of another one of this name; others go where there is no room.
    pub fn put(&self, name: K, toc: Arc<Toc>) {
        let mut kept = self.lock();
        kept.entries += weight(&toc);
        if let Some(before) = kept.tocs.put(name, toc) {
            kept.entries -= weight(&before);
        }
        while kept.entries > RECENT_ENTRIES
            && kept.tocs.len() > 1
            && let Some((_, oldest)) = kept.tocs.pop_lru()
        {
            kept.entries -= weight(&oldest);
        }
    }

    /// Forgets the TOC of this name.
    pub fn forget(&self, name: &K) {
        let mut kept = self.lock();
        if let Some(toc) = kept.tocs.pop(name) {
            kept.entries -= weight(&toc);
        }
    }

    /// Forgets all.
    pub fn clear(&self) {
        let mut kept = self.lock();
        kept.tocs.clear();
        kept.entries = 0;
    }

    fn lock(&self) -> MutexGuard<'_, Kept<K>> {
        self.0.lock().expect("nobody panics while holding it")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use buildyard_layer::{Entry, Kind, Time};

    fn toc(entries: usize) -> Arc<Toc> {
        let entry = Entry {
            path: Vec::new(),
            kind: Kind::Fifo,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            xattrs: Default::default(),
        };
        Arc::new(Toc {
            entries: vec![entry; entries],
            ..Toc::default()
        })
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let recent = RecentTocs::default();
        let third = RECENT_ENTRIES / 3;
        for name in ["a", "b"] {
            recent.put(name, toc(third));
        }
        recent.get("a");
        recent.put("c", toc(third));
        let there = ["a", "b", "c"].map(|name| recent.get(name).is_some());
        assert_eq!(there, [true, false, true]);
    }

    #[test]
    fn one_is_kept_whatever_its_size() {
        let recent = RecentTocs::default();
        recent.put("small", toc(1));
        recent.put("large", toc(RECENT_ENTRIES + 1));
        assert!(recent.get("small").is_none());
        assert!(recent.get("large").is_some());
    }

    #[test]
    fn forgotten_ones_leave_their_room() {
        let recent = RecentTocs::default();
        recent.put(1, toc(RECENT_ENTRIES - 10));
        recent.put(1, toc(RECENT_ENTRIES - 10));
        recent.forget(&1);
        recent.put(2, toc(RECENT_ENTRIES / 2));
        recent.put(3, toc(RECENT_ENTRIES / 3));
        assert!(recent.get(&2).is_some() && recent.get(&3).is_some());
        recent.clear();
        assert!(recent.get(&2).is_none());
    }
}
