//! Addresses for private networks: which subnet is free on this machine, and which of its addresses.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::NetworkError;

/// A subnet of 256 addresses: `10.213.number.0/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subnet {
    number: u8,
}

impl Subnet {
    /// The first one from `preferred` on that overlaps with none of the networks in use.
    pub(super) fn choose(preferred: u8, in_use: &[(Ipv4Addr, u32)]) -> Result<Self, NetworkError> {
        let candidates = (0..=255u8).map(|step| Self {
            number: preferred.wrapping_add(step),
        });
        let free = |subnet: &Self| {
            !in_use
                .iter()
                .any(|(address, length)| subnet.overlaps(*address, *length))
        };
        candidates
            .into_iter()
            .find(free)
            .ok_or(NetworkError::NoSubnet)
    }

    fn overlaps(self, address: Ipv4Addr, length: u32) -> bool {
        let common = length.min(24);
        let mask = u32::MAX.checked_shl(32 - common).unwrap_or(0);
        u32::from(address) & mask == u32::from(self.address(0)) & mask
    }

    /// One of its addresses.
    pub(super) fn address(self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 213, self.number, host)
    }

    /// The bridge's.
    pub(super) fn gateway(self) -> Ipv4Addr {
        self.address(1)
    }

    /// `10.213.7.0/24`.
    pub(super) fn text(self) -> String {
        format!("{}/24", self.address(0))
    }
}

/// The addresses of a subnet that steps have. They are given out in turn, so that one is not used again at once.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    taken: BTreeSet<u8>,
    last: u8,
}

impl Addresses {
    /// Takes the next free one.
    pub(super) fn take(&mut self) -> Option<u8> {
        let candidates = (1..=255u8).map(|step| self.last.wrapping_add(step));
        let usable = |host: &u8| (2..=254).contains(host) && !self.taken.contains(host);
        let host = candidates.into_iter().find(usable)?;
        self.taken.insert(host);
        self.last = host;
        Some(host)
    }

    /// Gives one back.
    pub(super) fn give_back(&mut self, host: u8) {
        self.taken.remove(&host);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_in_use_are_avoided() {
        let check = |preferred, in_use: &[(&str, u32)], expected: &str| {
            let in_use: Vec<_> = in_use
                .iter()
                .map(|(text, length)| (text.parse().unwrap(), *length))
                .collect();
            assert_eq!(Subnet::choose(preferred, &in_use).unwrap().text(), expected);
        };
        check(7, &[("192.0.2.2", 24)], "10.213.7.0/24");
        check(
            7,
            &[("10.213.7.9", 32), ("10.213.8.0", 24)],
            "10.213.9.0/24",
        );
        check(255, &[("10.213.255.1", 30)], "10.213.0.0/24");
        check(0, &[("10.213.0.0", 17)], "10.213.128.0/24");
        assert!(Subnet::choose(0, &[("10.0.0.0".parse().unwrap(), 8)]).is_err());
    }

    #[test]
    fn addresses_are_given_out_in_turn_until_none_is_left() {
        let mut addresses = Addresses::default();
        assert_eq!(addresses.take(), Some(2));
        addresses.give_back(2);
        assert_eq!(addresses.take(), Some(3));
        assert_eq!((0..300).filter_map(|_| addresses.take()).count(), 252);
        addresses.give_back(77);
        assert_eq!(addresses.take(), Some(77));
        assert_eq!(addresses.take(), None);
    }
}
