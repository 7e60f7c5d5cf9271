//! A private network: a bridge, and a namespace with one device on it for each step.
//!
//! Steps reach what the machine reaches, with its address as theirs (masquerading), and the machine itself; not each
//! other. All names carry a hash of the data directory, so several workers on one machine do not meet ([`Owner`]). What a
//! killed worker left is removed by the next one that starts on the machine, whichever it is. On the machine it needs forwarding (`net.ipv4.ip_forward`, switched on if it is off) and
//! one nftables table. IPv4 only.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;

use buildyard_model::Digest;
use rustix::fs::FlockOperation;

use super::maker::Maker;
use super::namespace::{self, Link};
use super::netlink::Netlink;
use super::owner::{self, Owner};
use super::pool::Pool;
use super::subnet::Subnet;
use super::{NetworkError, messages, tools, wayout};
use crate::runner::UserNamespace;

/// Held while a subnet is chosen, so that two workers do not take the same one.
const LOCK: &str = "/run/buildyard-network.lock";
/// How many networks are held ready.
const READY: usize = 4;

/// A private network. Dropping it removes the bridge and the rules.
#[derive(Debug)]
pub struct PrivateNetwork {
    /// The network namespace it was made in: the worker's.
    home: File,
    owner: Owner,
    maker: Arc<Maker>,
    /// Dropped before the bridge is removed.
    pool: Option<Pool>,
}

impl PrivateNetwork {
    /// Sets the network up in the calling thread's network namespace, for the worker whose data directory is `data`.
    /// Networks whose workers are gone are removed.
    ///
    /// # Errors
    /// What is missing for it.
    pub fn open(data: &Path) -> Result<Self, NetworkError> {
        let home = namespace::current()
            .map_err(NetworkError::io("opening this process's network namespace"))?;
        let data =
            fs::canonicalize(data).map_err(NetworkError::io("finding the data directory"))?;
        let data = data.as_os_str().as_encoded_bytes();
        let lock =
            File::create(LOCK).map_err(NetworkError::io("creating /run/buildyard-network.lock"))?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).map_err(|errno| {
            NetworkError::io("locking /run/buildyard-network.lock")(errno.into())
        })?;
        let asking = "asking for the networks that this machine uses";
        let mut socket = Netlink::open().map_err(NetworkError::io(asking))?;
        sweep(&mut socket).map_err(NetworkError::io(
            "removing the networks of workers that are gone",
        ))?;
        let owner =
            Owner::of(data).map_err(NetworkError::io("taking a name for a private network"))?;
        let mut in_use = Vec::new();
        for request in [messages::addresses(), messages::routes()] {
            let found = socket.all(request).map_err(NetworkError::io(asking))?;
            in_use.extend(found.iter().filter_map(messages::network));
        }
        let subnet = Subnet::choose(Digest::of(data).as_bytes()[0], &in_use)?;
        let maker = Arc::new(Maker::new(&owner.bridge(), subnet, socket)?);
        // From here on it removes what it has made when it is dropped.
        let mut network = Self {
            home,
            owner,
            maker,
            pool: None,
        };
        wayout::open(&network.owner.table(), &network.owner.bridge(), subnet)?;
        network.pool = Some(Pool::start(Arc::clone(&network.maker), READY)?);
        Ok(network)
    }

    /// A namespace for one step, which runs in `user` if that is given.
    pub(super) fn attach(&self, user: Option<&UserNamespace>) -> Result<Link, NetworkError> {
        let ready = match (user, &self.pool) {
            (None, Some(pool)) => pool.take(),
            _ => None,
        };
        ready.map_or_else(|| self.maker.make(user), Ok)
    }

    /// Leaves everything behind, as a worker does that is killed.
    #[cfg(test)]
    pub(super) fn abandon(self) {
        let mut left = std::mem::ManuallyDrop::new(self);
        left.pool = None;
        left.owner.die();
    }
}

impl Drop for PrivateNetwork {
    fn drop(&mut self) {
        self.pool = None;
        let removed = tools::inside(&self.home, || {
            let mut socket = Netlink::open().map_err(NetworkError::io("removing a bridge"))?;
            remove(&self.owner, &mut socket);
            Ok(())
        });
        if let Err(error) = removed {
            tracing::warn!(%error, "the private network's bridge was left behind");
        }
    }
}

/// Removes every network in the calling thread's namespace whose worker is gone.
fn sweep(socket: &mut Netlink) -> io::Result<()> {
    let links = socket.all(messages::links())?;
    for (bridge, _) in links.iter().filter_map(messages::name_and_index) {
        let Some(tag) = owner::tag_of(bridge) else {
            continue;
        };
        // While it is ours, no new worker takes it.
        if let Some(gone) = Owner::take(tag)? {
            tracing::info!(bridge, "removing the network of a worker that is gone");
            remove(&gone, socket);
        }
    }
    Ok(())
}

/// Removes what this owner has made, the bridge last: where there is none, there is nothing else either.
fn remove(owner: &Owner, socket: &mut Netlink) {
    wayout::close(&owner.table(), &owner.bridge());
    Maker::remove_bridge(socket, &owner.bridge());
}
