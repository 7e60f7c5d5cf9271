//! A private network: a bridge, and a namespace with one device on it for each step.
//!
//! Steps reach what the machine reaches, with its address as theirs (masquerading), and the machine itself; not each
//! other. All names carry a hash of the data directory, so several workers on one machine do not meet, and what a killed
//! one left is found by the next. On the machine it needs forwarding (`net.ipv4.ip_forward`, switched on if it is off) and
//! one nftables table. IPv4 only.

use std::fs::{self, File};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use buildyard_model::Digest;
use rustix::fs::FlockOperation;

use super::namespace::{self, Link};
use super::subnet::{Addresses, Subnet, networks_in_use};
use super::{NetworkError, tools};
use crate::runner::UserNamespace;

const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
/// Held while a subnet is chosen, so that two workers do not take the same one.
const LOCK: &str = "/run/buildyard-network.lock";

/// A private network. Dropping it removes the bridge and the rules.
#[derive(Debug)]
pub struct PrivateNetwork {
    /// The network namespace it was made in: the worker's.
    home: File,
    /// Hash of the data directory, as part of names.
    tag: String,
    subnet: Subnet,
    addresses: Mutex<Addresses>,
}

impl PrivateNetwork {
    /// Sets the network up in the calling thread's network namespace, for the worker whose data directory is `data`.
    /// Leftovers of an earlier process are replaced.
    ///
    /// # Errors
    /// What is missing for it.
    pub fn open(data: &Path) -> Result<Self, NetworkError> {
        let home = namespace::current()
            .map_err(NetworkError::io("opening this process's network namespace"))?;
        let data =
            fs::canonicalize(data).map_err(NetworkError::io("finding the data directory"))?;
        let digest = Digest::of(data.as_os_str().as_encoded_bytes());
        let tag = digest.hex()[..8].to_owned();
        let lock =
            File::create(LOCK).map_err(NetworkError::io("creating /run/buildyard-network.lock"))?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).map_err(|errno| {
            NetworkError::io("locking /run/buildyard-network.lock")(errno.into())
        })?;
        remove(&tag);
        let in_use = networks_in_use(&tools::ip_json(&["address"])?, &tools::ip_json(&["route"])?);
        let subnet = Subnet::choose(digest.as_bytes()[0], &in_use)?;
        // From here on it removes what it has made when it is dropped.
        let network = Self {
            home,
            tag,
            subnet,
            addresses: Mutex::default(),
        };
        network.make_bridge()?;
        network.make_way_out()?;
        Ok(network)
    }

    fn make_bridge(&self) -> Result<(), NetworkError> {
        let (bridge, gateway) = (bridge(&self.tag), self.subnet.gateway());
        let lines = format!(
            "link add {bridge} type bridge\naddress add {gateway}/24 dev {bridge}\nlink set {bridge} up\n"
        );
        tools::ip_batch("making a bridge for steps", &lines)
    }

    fn make_way_out(&self) -> Result<(), NetworkError> {
        let forwards = fs::read_to_string(FORWARD).is_ok_and(|text| text.trim() == "1");
        if !forwards {
            tracing::info!("switching on net.ipv4.ip_forward for the private network of steps");
            fs::write(FORWARD, "1")
                .map_err(NetworkError::io("switching on net.ipv4.ip_forward"))?;
        }
        let (table, bridge, subnet) = (table(&self.tag), bridge(&self.tag), self.subnet.text());
        let rules = format!(
            "table ip {table} {{\n chain postrouting {{\n  type nat hook postrouting priority 100; policy accept;\n  \
             ip saddr {subnet} oifname != \"{bridge}\" masquerade\n }}\n}}\n"
        );
        tools::nft("making the rules for the steps' way out", &rules)?;
        // An accepting rule in a table of one's own does not help against a chain that drops: Docker's default.
        if tools::iptables(&["-S", "FORWARD"])
            .is_some_and(|rules| rules.starts_with("-P FORWARD DROP"))
        {
            for rule in forward_rules(&self.tag) {
                let arguments: Vec<&str> = ["-I", "FORWARD"]
                    .into_iter()
                    .chain(rule.iter().map(String::as_str))
                    .collect();
                if tools::iptables(&arguments).is_none() {
                    let message =
                        "iptables refused a rule that lets their packets through".to_owned();
                    return Err(NetworkError::Refused {
                        what: "making the rules for the steps' way out",
                        message,
                    });
                }
            }
        }
        Ok(())
    }

    /// Makes a namespace for one step, which runs in `user` if that is given.
    pub(super) fn attach(
        self: &Arc<Self>,
        user: Option<&UserNamespace>,
    ) -> Result<Link, NetworkError> {
        let host = self.lock().take().ok_or(NetworkError::NoAddress)?;
        let namespace = namespace::create(user).inspect_err(|_| self.give_back(host))?;
        // From here on the address is given back when it is dropped.
        let link = Link {
            namespace,
            network: Arc::clone(self),
            host,
        };
        let device = format!("bv{}", hex::encode(rand::random::<[u8; 6]>()));
        let bridge = bridge(&self.tag);
        let path = link.path();
        let outside = format!(
            "link add {device} type veth peer name eth0 netns {}\nlink set {device} master {bridge}\n\
             link set {device} type bridge_slave isolated on\nlink set {device} up\n",
            path.display()
        );
        tools::inside(&self.home, || {
            tools::ip_batch("making a device for a step", &outside)
        })?;
        let (address, gateway) = (self.subnet.address(host), self.subnet.gateway());
        let inside = format!(
            "link set lo up\naddress add {address}/24 dev eth0\nlink set eth0 up\nroute add default via {gateway}\n"
        );
        tools::inside(&link.namespace, || {
            tools::ip_batch("setting up a step's device", &inside)
        })?;
        Ok(link)
    }

    pub(super) fn give_back(&self, host: u8) {
        self.lock().give_back(host);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Addresses> {
        self.addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for PrivateNetwork {
    fn drop(&mut self) {
        let removed = tools::inside(&self.home, || {
            remove(&self.tag);
            Ok(())
        });
        if let Err(error) = removed {
            tracing::warn!(%error, "the private network's bridge was left behind");
        }
    }
}

/// Removes what a worker of this tag has made in the calling thread's namespace. What is not there is no error.
fn remove(tag: &str) {
    for rule in forward_rules(tag) {
        let arguments: Vec<&str> = ["-D", "FORWARD"]
            .into_iter()
            .chain(rule.iter().map(String::as_str))
            .collect();
        while tools::iptables(&arguments).is_some() {}
    }
    let _ = tools::nft(
        "removing rules",
        &format!("delete table ip {}\n", table(tag)),
    );
    let _ = tools::ip_batch(
        "removing a bridge",
        &format!("link delete {}\n", bridge(tag)),
    );
}

fn bridge(tag: &str) -> String {
    format!("by{tag}")
}

fn table(tag: &str) -> String {
    format!("buildyard_{tag}")
}

/// What lets packets to and from the bridge through.
fn forward_rules(tag: &str) -> [Vec<String>; 2] {
    let bridge = bridge(tag);
    let words = |text: String| text.split(' ').map(str::to_owned).collect();
    [
        words(format!("-i {bridge} -j ACCEPT")),
        words(format!(
            "-o {bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
        )),
    ]
}
