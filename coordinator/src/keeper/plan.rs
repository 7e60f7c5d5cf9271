//! What goes, and in which order. Pure.

use std::collections::HashSet;

use buildyard_store::{Candidate, InUse, Item, Referrer, plan_gc};

/// The bounds that the store is kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Most bytes that the store may take.
    pub(super) cap: u64,
    /// Bytes that should stay free on its disk. Unused content goes for them, but no write is refused for them.
    pub(super) spare: u64,
}

impl Bounds {
    /// How many of `taken` bytes are too many.
    pub(super) fn over_cap(&self, taken: u64) -> u64 {
        taken.saturating_sub(self.cap)
    }

    /// How many bytes should go when `taken` are taken and `free` are left on the disk.
    pub(super) fn excess(&self, taken: u64, free: u64) -> u64 {
        self.over_cap(taken).max(self.spare.saturating_sub(free))
    }

    /// How much more is freed when something has to be, so that the next write need not wait again.
    pub(super) fn slack(&self) -> u64 {
        (self.cap / 64).min(1 << 30)
    }
}

/// Chooses what goes so that `excess` bytes are freed, if there is as much: first what nothing refers to, then encoded
/// forms (they can be made again), then the rest; each the least recently used first, nothing that is needed. What nothing
/// refers to and is in `fresh` has just been written: its record is still to come.
pub(super) fn choose(
    candidates: &[Candidate],
    in_use: &InUse,
    fresh: &HashSet<Item>,
    excess: u64,
) -> Vec<Candidate> {
    let mut tiers: [Vec<Candidate>; 3] = Default::default();
    for candidate in candidates {
        let cheap = |referrer: &Referrer| matches!(referrer, Referrer::Encoding(_));
        let tier = match &candidate.needed_by[..] {
            [] if fresh.contains(&candidate.item) => continue,
            [] => 0,
            referrers if referrers.iter().all(cheap) => 1,
            _ => 2,
        };
        tiers[tier].push(candidate.clone());
    }
    let mut victims = Vec::new();
    let mut left = excess;
    for tier in &tiers {
        let plan = plan_gc(tier, in_use, left, 0, 0);
        left = plan.short_by;
        victims.extend(plan.victims);
    }
    victims
}

#[cfg(test)]
mod tests {
    use buildyard_model::{Digest, LayerId};
    use buildyard_store::UnixMillis;

    use super::*;

    fn item(name: &str) -> Item {
        Item::snapshot(name)
    }

    fn candidate(name: &str, bytes: u64, used: i64, referrer: Option<Referrer>) -> Candidate {
        Candidate {
            item: item(name),
            bytes,
            used: UnixMillis(used),
            needed_by: referrer.into_iter().collect(),
        }
    }

    #[test]
    fn the_cheapest_go_first() {
        let layer = |name| LayerId(Digest::of(name));
        let candidates = [
            candidate("oldest", 10, 1, Some(Referrer::Layer(layer("a")))),
            candidate("newer", 10, 3, Some(Referrer::Layer(layer("b")))),
            candidate("gzip", 10, 4, Some(Referrer::Encoding(layer("b")))),
            candidate("nobody's", 10, 9, None),
            candidate("just written", 10, 0, None),
        ];
        let fresh = HashSet::from([item("just written")]);
        let check = |excess, held: &[&'static str], expected: &[&str]| {
            let in_use = InUse {
                layers: held.iter().map(|name| layer(name)).collect(),
                ..InUse::default()
            };
            let victims = choose(&candidates, &in_use, &fresh, excess);
            let names: Vec<&str> = victims.iter().map(|victim| &victim.item.id[..]).collect();
            assert_eq!(names, expected, "{excess} {held:?}");
        };
        check(0, &[], &[]);
        check(10, &[], &["nobody's"]);
        check(11, &[], &["nobody's", "gzip"]);
        check(21, &[], &["nobody's", "gzip", "oldest"]);
        check(99, &[], &["nobody's", "gzip", "oldest", "newer"]);
        check(99, &["b"], &["nobody's", "oldest"]);
    }

    #[test]
    fn both_bounds_count() {
        let bounds = Bounds {
            cap: 100,
            spare: 10,
        };
        let check = |taken, free, expected| {
            assert_eq!(bounds.excess(taken, free), expected, "{taken} {free}");
        };
        check(100, 10, 0);
        check(101, 10, 1);
        check(100, 7, 3);
        check(105, 7, 5);
    }
}
