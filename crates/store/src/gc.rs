//! What to remove so that a write fits under the cap. A pure function: it removes nothing itself.

use std::collections::HashSet;

use buildyard_model::LayerId;

use crate::{Candidate, Item, Referrer};

/// What running builds need.
#[derive(Debug, Clone, Default)]
pub struct InUse {
    /// Things that are read or written right now.
    pub items: HashSet<Item>,
    /// Layers of chains that running builds have: their TOCs, flat files and encodings stay.
    pub layers: HashSet<LayerId>,
}

/// The outcome of planning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GcPlan {
    /// What to remove, in this order.
    pub victims: Vec<Candidate>,
    /// The layers that are lost with them; each once.
    pub lost_layers: Vec<LayerId>,
    /// How many bytes that frees.
    pub freed: u64,
    /// How many bytes are still too many afterwards. Not zero: look at more candidates, or refuse the write.
    pub short_by: u64,
}

/// Chooses the least recently used of `candidates` (any order, ties by id) until `needed` more bytes fit under `cap`
/// beside what is left of `total`; never something in `in_use`. Plans nothing where they fit already.
pub fn plan_gc(
    candidates: &[Candidate],
    in_use: &InUse,
    total: u64,
    cap: u64,
    needed: u64,
) -> GcPlan {
    let mut excess = total.saturating_add(needed).saturating_sub(cap);
    let mut order: Vec<&Candidate> = candidates
        .iter()
        .filter(|candidate| !is_needed(candidate, in_use))
        .collect();
    order.sort_by_key(|candidate| (candidate.used, &candidate.item));
    let mut plan = GcPlan {
        victims: Vec::new(),
        lost_layers: Vec::new(),
        freed: 0,
        short_by: 0,
    };
    let mut lost = HashSet::new();
    for candidate in order {
        if excess == 0 {
            break;
        }
        excess = excess.saturating_sub(candidate.bytes);
        plan.freed += candidate.bytes;
        for referrer in &candidate.needed_by {
            if let Referrer::Layer(layer) = referrer
                && lost.insert(*layer)
            {
                plan.lost_layers.push(*layer);
            }
        }
        plan.victims.push(candidate.clone());
    }
    plan.short_by = excess;
    plan
}

/// Whether `candidate` is something that running builds need.
pub fn is_needed(candidate: &Candidate, in_use: &InUse) -> bool {
    in_use.items.contains(&candidate.item)
        || candidate.needed_by.iter().any(|referrer| match referrer {
            Referrer::Layer(layer) | Referrer::Pulled(layer) | Referrer::Encoding(layer) => {
                in_use.layers.contains(layer)
            }
            Referrer::Log(_) => false,
        })
}

#[cfg(test)]
mod tests {
    use buildyard_model::Digest;
    use proptest::prelude::*;

    use super::*;
    use crate::UnixMillis;

    fn layer(name: &str) -> LayerId {
        LayerId(Digest::of(name))
    }

    fn candidate(name: &str, bytes: u64, used: i64) -> Candidate {
        let needed_by = vec![Referrer::Layer(layer(name))];
        Candidate {
            item: Item::snapshot(name),
            bytes,
            used: UnixMillis(used),
            needed_by,
        }
    }

    fn check(total: u64, cap: u64, needed: u64, in_use: &InUse, expected: &[&str], short_by: u64) {
        let candidates = [
            candidate("new", 50, 9),
            candidate("old", 10, 1),
            candidate("middle", 30, 5),
        ];
        let plan = plan_gc(&candidates, in_use, total, cap, needed);
        let victims: Vec<&str> = plan
            .victims
            .iter()
            .map(|victim| victim.item.id.as_str())
            .collect();
        assert_eq!(victims, expected);
        assert_eq!(plan.short_by, short_by);
        let lost: Vec<LayerId> = expected.iter().map(|name| layer(name)).collect();
        assert_eq!(plan.lost_layers, lost);
    }

    #[test]
    fn the_oldest_go_first_and_only_as_many_as_needed() {
        let nothing = InUse::default();
        check(90, 100, 10, &nothing, &[], 0);
        check(90, 100, 11, &nothing, &["old"], 0);
        check(90, 100, 20, &nothing, &["old"], 0);
        check(90, 100, 21, &nothing, &["old", "middle"], 0);
        check(90, 100, 100, &nothing, &["old", "middle", "new"], 0);
        check(90, 100, 107, &nothing, &["old", "middle", "new"], 7);
        check(
            90,
            0,
            u64::MAX,
            &nothing,
            &["old", "middle", "new"],
            u64::MAX - 90,
        );
    }

    #[test]
    fn what_running_builds_need_stays() {
        let items = InUse {
            items: HashSet::from([Item::snapshot("old")]),
            ..InUse::default()
        };
        check(90, 90, 5, &items, &["middle"], 0);
        let layers = InUse {
            layers: HashSet::from([layer("old"), layer("middle")]),
            ..InUse::default()
        };
        check(90, 90, 60, &layers, &["new"], 10);
    }

    proptest! {
        #[test]
        fn a_plan_fits_or_takes_all_that_is_free(
            sizes in proptest::collection::vec((1u64..100, 0i64..5, any::<bool>()), 0..30),
            cap in 0u64..3000,
            needed in 0u64..500,
        ) {
            let mut in_use = InUse::default();
            let mut candidates = Vec::new();
            for (number, (bytes, used, kept)) in sizes.iter().enumerate() {
                let candidate = candidate(&number.to_string(), *bytes, *used);
                if *kept {
                    in_use.items.insert(candidate.item.clone());
                }
                candidates.push(candidate);
            }
            let total: u64 = sizes.iter().map(|(bytes, ..)| bytes).sum();
            let plan = plan_gc(&candidates, &in_use, total, cap, needed);
            let free = sizes.iter().filter(|(.., kept)| !kept).count();
            prop_assert!(plan.victims.iter().all(|victim| !in_use.items.contains(&victim.item)));
            prop_assert!(plan.victims.is_sorted_by_key(|victim| victim.used));
            if plan.short_by == 0 {
                prop_assert!(total - plan.freed + needed <= cap);
                let last = plan.victims.last().map_or(0, |victim| victim.bytes);
                prop_assert!(plan.victims.is_empty() || total - plan.freed + last + needed > cap);
            } else {
                prop_assert_eq!(plan.victims.len(), free);
                prop_assert_eq!(total - plan.freed + needed, cap + plan.short_by);
            }
        }
    }
}
