//! Who a private network belongs to, so that what a killed worker left can be told from what a living one uses.
//!
//! The mark is an abstract Unix socket. Its name belongs to the network namespace, as bridges and rules do, and the kernel
//! frees it when its process ends, however that happens. So it is right also where workers see different process numbers or
//! different files but share a network, which lock files and process numbers are not.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use buildyard_model::Digest;

/// The letters that come before the tag in a bridge's name.
const BRIDGE: &str = "by-";
/// How many tags a data directory may have: one for each worker that sees another directory under the same path.
const TAGS: u32 = 100;

/// The right to the names with one tag, in the network namespace of the thread that took it.
#[derive(Debug)]
pub(super) struct Owner {
    tag: String,
    _mark: UnixDatagram,
}

impl Owner {
    /// Takes the first free tag of a data directory.
    pub(super) fn of(data: &[u8]) -> io::Result<Self> {
        for number in 0..TAGS {
            let tag = match number {
                0 => Digest::of(data),
                number => Digest::of([data, b"\0", &number.to_le_bytes()].concat()),
            };
            if let Some(owner) = Self::take(&tag.hex()[..8])? {
                return Ok(owner);
            }
        }
        let message = format!("{TAGS} workers with a data directory of this path run here");
        Err(io::Error::new(io::ErrorKind::AddrInUse, message))
    }

    /// Takes a tag; `None` if it is a living process's.
    pub(super) fn take(tag: &str) -> io::Result<Option<Self>> {
        let name = SocketAddr::from_abstract_name(format!("buildyard-network-{tag}"))?;
        match UnixDatagram::bind_addr(&name) {
            Ok(mark) => Ok(Some(Self {
                tag: tag.to_owned(),
                _mark: mark,
            })),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The mark goes, as with its process.
    #[cfg(test)]
    pub(super) fn die(&mut self) {
        self._mark = UnixDatagram::unbound().expect("a socket");
    }

    /// What a network's bridge is called.
    pub(super) fn bridge(&self) -> String {
        format!("{BRIDGE}{}", self.tag)
    }

    /// What its table of rules is called.
    pub(super) fn table(&self) -> String {
        format!("buildyard_net_{}", self.tag)
    }
}

/// The tag in a bridge's name; `None` for what is no worker's bridge.
pub(super) fn tag_of(bridge: &str) -> Option<&str> {
    let tag = bridge.strip_prefix(BRIDGE)?;
    let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    (tag.len() == 8 && tag.bytes().all(is_digit)).then_some(tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_one_living_owners() {
        let data = format!("/data of test {}", std::process::id());
        let first = Owner::of(data.as_bytes()).unwrap();
        assert!(Owner::take(&first.tag).unwrap().is_none());
        let second = Owner::of(data.as_bytes()).unwrap();
        assert_ne!(first.tag, second.tag);
        let tag = first.tag.clone();
        drop(first);
        assert_eq!(Owner::of(data.as_bytes()).unwrap().tag, tag);
    }

    #[test]
    fn only_workers_bridges_have_a_tag() {
        assert_eq!(tag_of("by-0123abcd"), Some("0123abcd"));
        for other in [
            "by-0123abc",
            "by-0123abcde",
            "by-0123ABCD",
            "by-mine-br",
            "br-0123abcd",
        ] {
            assert_eq!(tag_of(other), None, "{other}");
        }
    }
}
