//! Makes networks for steps: a namespace with one device on the worker's bridge.

use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::namespace::{self, Link};
use super::netlink::Netlink;
use super::subnet::{Addresses, Subnet};
use super::{NetworkError, messages};
use crate::runner::UserNamespace;

const DEVICE: &str = "making a device for a step";
const INSIDE: &str = "setting up a step's device";

/// The bridge, and what makes devices on it.
#[derive(Debug)]
pub(super) struct Maker {
    subnet: Subnet,
    /// The bridge's index.
    bridge: u32,
    /// Speaks to the worker's own network namespace.
    outside: Mutex<Netlink>,
    addresses: Mutex<Addresses>,
}

impl Maker {
    /// Makes the bridge `name` with the first address of `subnet`. `outside` is of the namespace that it is made in.
    pub(super) fn new(
        name: &str,
        subnet: Subnet,
        mut outside: Netlink,
    ) -> Result<Self, NetworkError> {
        let what = || NetworkError::io("making a bridge for steps");
        outside.create(messages::bridge(name)).map_err(what())?;
        let links = outside.all(messages::links()).map_err(what())?;
        let bridge = links
            .iter()
            .filter_map(messages::name_and_index)
            .find_map(|(found, index)| (found == name).then_some(index))
            .ok_or_else(|| what()(std::io::ErrorKind::NotFound.into()))?;
        let gateway = messages::address(bridge, subnet.gateway());
        outside.create(gateway).map_err(what())?;
        Ok(Self {
            subnet,
            bridge,
            outside: Mutex::new(outside),
            addresses: Mutex::default(),
        })
    }

    /// Makes a network for one step, which runs in `user` if that is given.
    pub(super) fn make(
        self: &Arc<Self>,
        user: Option<&UserNamespace>,
    ) -> Result<Link, NetworkError> {
        let host = lock(&self.addresses)
            .take()
            .ok_or(NetworkError::NoAddress)?;
        let (namespace, inside) = namespace::create(user).inspect_err(|_| self.give_back(host))?;
        // From here on the address is given back when it is dropped.
        let link = Link {
            namespace,
            maker: Arc::clone(self),
            host,
        };
        self.connect(&link.namespace)?;
        self.set_up(inside, host)?;
        Ok(link)
    }

    /// A pair of devices between the bridge and `namespace`.
    fn connect(&self, namespace: &File) -> Result<(), NetworkError> {
        use std::os::fd::AsFd;
        let name = format!("bv{}", hex::encode(rand::random::<[u8; 6]>()));
        let mut outside = lock(&self.outside);
        outside
            .create(messages::pair(&name, self.bridge, namespace.as_fd()))
            .map_err(NetworkError::io(DEVICE))?;
        outside
            .change(messages::isolated(&name))
            .map_err(NetworkError::io(DEVICE))
    }

    /// Address and way out of the device inside the step's namespace.
    fn set_up(&self, mut inside: Netlink, host: u8) -> Result<(), NetworkError> {
        let (address, gateway) = (self.subnet.address(host), self.subnet.gateway());
        for device in [messages::LOOPBACK, messages::STEP_DEVICE] {
            inside
                .change(messages::switched_on(device))
                .map_err(NetworkError::io(INSIDE))?;
        }
        inside
            .create(messages::address(messages::STEP_DEVICE, address))
            .map_err(NetworkError::io(INSIDE))?;
        inside
            .create(messages::default_route(gateway))
            .map_err(NetworkError::io(INSIDE))
    }

    /// Takes a step's address back.
    pub(super) fn give_back(&self, host: u8) {
        lock(&self.addresses).give_back(host);
    }

    /// Removes the bridge `name`, from whatever process; `socket` is of the namespace that it is in.
    pub(super) fn remove_bridge(socket: &mut Netlink, name: &str) {
        match socket.change(messages::removal(name)) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
            Err(error) => tracing::warn!(bridge = name, %error, "a bridge was left behind"),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
