//! What a worker says of itself: once per connection all of it, with each heartbeat what has changed.

use std::collections::HashSet;

use buildyard_model::Mark;
use buildyard_proto::v1 as proto;

use super::config::{Offered, WorkerConfig};
use super::machine::Machine;

/// What lies on this machine's disk, as far as the coordinator was told over the present connection.
pub(super) struct Told(HashSet<Mark>);

impl Told {
    /// A connection on which `now` is told.
    fn of(now: HashSet<Mark>) -> (Self, proto::Holdings) {
        let holdings = proto::Holdings {
            added: now.iter().map(|mark| mark.0).collect(),
            removed: Vec::new(),
        };
        (Self(now), holdings)
    }

    /// What is to be told where `now` lies there; `None` if that is known.
    fn change(&mut self, now: HashSet<Mark>) -> Option<proto::Holdings> {
        let difference = |a: &HashSet<Mark>, b: &HashSet<Mark>| {
            let only = a.difference(b);
            only.map(|mark| mark.0).collect::<Vec<u64>>()
        };
        let holdings = proto::Holdings {
            added: difference(&now, &self.0),
            removed: difference(&self.0, &now),
        };
        self.0 = now;
        let changed = !holdings.added.is_empty() || !holdings.removed.is_empty();
        changed.then_some(holdings)
    }
}

/// The first message of a connection. `fresh`: this process was never registered.
pub(super) fn register(
    machine: &Machine,
    config: &WorkerConfig,
    session: &str,
    fresh: bool,
) -> (Told, proto::Register) {
    let offered = |offer: &Offered| proto::OfferedPlatform {
        platform: offer.platform.to_string(),
        emulated: !offer.emulator.is_empty(),
        how: offer.emulator.clone(),
    };
    let networks = machine
        .executor
        .as_ref()
        .map(|executor| executor.networks(machine.allow_host_network));
    let jobs = machine.jobs.lock().expect("nobody panics while holding it");
    let (told, holdings) = Told::of(machine.cache.present());
    let register = proto::Register {
        name: config.name.clone(),
        session: session.to_owned(),
        platforms: machine.offered.iter().map(offered).collect(),
        slots: config.slots,
        claims: machine.running.claims(),
        jobs: jobs.keys().cloned().collect(),
        shares_flat_files: config.shared_flats.is_some(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        networks: networks.unwrap_or_default(),
        fresh,
        holdings: Some(holdings),
    };
    (told, register)
}

/// A heartbeat.
pub(super) fn heartbeat(machine: &Machine, told: &mut Told) -> proto::Heartbeat {
    proto::Heartbeat {
        claims: machine.running.claims(),
        holdings: told.change(machine.cache.present()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks<const N: usize>(marks: [u64; N]) -> HashSet<Mark> {
        marks.map(Mark).into()
    }

    #[test]
    fn all_is_told_once_then_what_changes() {
        let (mut told, first) = Told::of(marks([1, 2]));
        let first: HashSet<u64> = first.added.into_iter().collect();
        assert_eq!(first, HashSet::from([1, 2]));
        assert_eq!(told.change(marks([2, 1])), None);
        let change = told.change(marks([2, 3])).expect("it changed");
        assert_eq!((change.added, change.removed), (vec![3], vec![1]));
        assert_eq!(told.change(marks([2, 3])), None);
        let change = told.change(marks([])).expect("it changed");
        assert_eq!((change.added.len(), change.removed.len()), (0, 2));
    }
}
