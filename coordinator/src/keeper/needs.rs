//! What running builds need, so that it is not removed under them.
//!
//! A build holds the layers of its results and images, and the flat files that a transfer builds upon, before it relies on
//! them. Removal is announced first: between a build's "I hold it" and the removal one comes first, and who comes second
//! learns it at once. A layer that is about to go is a miss.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};

use buildyard_model::{FlatId, LayerId};
use buildyard_store::{Candidate, InUse, Item, Referrer};

/// All holds of one process.
#[derive(Debug, Default)]
pub struct Needs(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    next: u64,
    holds: HashMap<u64, InUse>,
    /// What is being removed right now.
    going: InUse,
}

/// What one build holds; all of it is let go when its build ends, or this is dropped.
#[derive(Debug)]
pub struct Hold {
    needs: Arc<Needs>,
    number: u64,
}

impl Needs {
    /// An empty hold.
    pub fn hold(self: &Arc<Self>) -> Hold {
        let mut state = self.lock();
        state.next += 1;
        let number = state.next;
        state.holds.insert(number, InUse::default());
        Hold {
            needs: self.clone(),
            number,
        }
    }

    /// Everything that is held.
    pub(super) fn in_use(&self) -> InUse {
        self.lock().in_use()
    }

    /// Announces a removal. What somebody has come to hold since it was planned is left out of the answer.
    pub(super) fn announce(&self, victims: Vec<Candidate>) -> Vec<Candidate> {
        let mut state = self.lock();
        let in_use = state.in_use();
        let free: Vec<Candidate> = victims
            .into_iter()
            .filter(|victim| !buildyard_store::is_needed(victim, &in_use))
            .collect();
        for victim in &free {
            state.going.items.insert(victim.item.clone());
            let lost = victim
                .needed_by
                .iter()
                .filter_map(|referrer| match referrer {
                    Referrer::Layer(layer) => Some(*layer),
                    _ => None,
                });
            state.going.layers.extend(lost);
        }
        free
    }

    /// The announced removal is done.
    pub(super) fn done(&self) {
        self.lock().going = InUse::default();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panics while holding it")
    }
}

impl State {
    fn in_use(&self) -> InUse {
        let mut all = InUse::default();
        for hold in self.holds.values() {
            all.items.extend(hold.items.iter().cloned());
            all.layers.extend(&hold.layers);
        }
        all
    }
}

impl Hold {
    /// Holds these layers. `false`: one of them is being removed, so all of them count as gone; nothing is held then.
    pub fn layers(&self, layers: impl IntoIterator<Item = LayerId>) -> bool {
        let layers: HashSet<LayerId> = layers.into_iter().collect();
        let mut state = self.needs.lock();
        if !state.going.layers.is_disjoint(&layers) {
            return false;
        }
        if let Some(held) = state.holds.get_mut(&self.number) {
            held.layers.extend(layers);
        }
        true
    }

    /// Holds these flat files, in the same way.
    pub fn flats(&self, flats: impl IntoIterator<Item = FlatId>) -> bool {
        let items: HashSet<Item> = flats.into_iter().map(Item::flat).collect();
        let mut state = self.needs.lock();
        if !state.going.items.is_disjoint(&items) {
            return false;
        }
        if let Some(held) = state.holds.get_mut(&self.number) {
            held.items.extend(items);
        }
        true
    }
}

impl Hold {
    /// Lets go of everything, for good: parts of the farm may keep this for a moment longer than its build goes on.
    pub fn let_go(&self) {
        self.needs.lock().holds.remove(&self.number);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.let_go();
    }
}

#[cfg(test)]
mod tests {
    use buildyard_model::Digest;
    use buildyard_store::UnixMillis;

    use super::*;

    fn layer(name: &str) -> LayerId {
        LayerId(Digest::of(name))
    }

    fn candidate(name: &str) -> Candidate {
        Candidate {
            item: Item::flat(FlatId::from(Digest::of(name))),
            bytes: 1,
            used: UnixMillis(1),
            needed_by: vec![Referrer::Layer(layer(name))],
        }
    }

    #[test]
    fn what_is_held_stays_and_what_goes_cannot_be_held() {
        let needs = Arc::new(Needs::default());
        let hold = needs.hold();
        assert!(hold.layers([layer("a")]));
        let going = needs.announce(vec![candidate("a"), candidate("b")]);
        assert_eq!(going, [candidate("b")]);
        assert!(!hold.layers([layer("b"), layer("c")]));
        assert!(!hold.flats([FlatId::from(Digest::of("b"))]));
        assert!(!needs.in_use().layers.contains(&layer("c")));
        needs.done();
        assert!(hold.layers([layer("b")]));
        hold.let_go();
        assert!(needs.in_use().layers.is_empty());
        assert!(hold.layers([layer("b")]));
        assert!(needs.in_use().layers.is_empty(), "held by no build");
    }
}
