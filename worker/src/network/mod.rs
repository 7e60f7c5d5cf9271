//! The networks of steps: none, the machine's own, or a private one.
//!
//! A private network ([`PrivateNetwork`]) is a network namespace per step, tied to a bridge of the worker's, with a way out
//! through the machine's addresses. Whether it can be had is found out once, by setting it up; if not, the error says
//! what is missing, and it is the caller's decision what steps get instead. Nothing falls back by itself.

use std::sync::Arc;

use crate::runner::UserNamespace;

mod maker;
mod messages;
mod namespace;
mod netlink;
mod owner;
mod pool;
mod private;
mod subnet;
#[cfg(test)]
mod tests;
mod tools;
mod wayout;

pub(crate) use namespace::Link;
pub use private::PrivateNetwork;

/// A step's network.
#[derive(Debug, Clone)]
pub enum StepNetwork {
    /// A loopback device and nothing else.
    None,
    /// The worker's own.
    Host,
    /// A private one with a way out.
    Private(Arc<PrivateNetwork>),
}

impl StepNetwork {
    /// Makes the network ready for one step, which runs in `user` if that is given.
    pub(crate) fn attach(&self, user: Option<&UserNamespace>) -> Result<Attachment, NetworkError> {
        match self {
            Self::None => Ok(Attachment::Isolated),
            Self::Host => Ok(Attachment::Host),
            Self::Private(network) => network.attach(user).map(Attachment::Joined),
        }
    }
}

/// What a container does about its network.
#[derive(Debug)]
pub(crate) enum Attachment {
    /// It stays in the worker's network namespace.
    Host,
    /// It gets a new one.
    Isolated,
    /// It enters one that is ready.
    Joined(Link),
}

/// Why there is no private network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A program is missing.
    #[error("{program} cannot be started: a private network needs it (Debian's package {package})")]
    Missing {
        /// The program.
        program: &'static str,
        /// Where it comes from.
        package: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// A program refused.
    #[error("{what}: {message}")]
    Refused {
        /// What was tried.
        what: &'static str,
        /// What the program said.
        message: String,
    },
    /// The machine refused.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// All subnets of the range are in use on this machine.
    #[error("every subnet of 10.213.0.0/16 overlaps with an address or a route of this machine")]
    NoSubnet,
    /// More steps at once than the subnet has addresses.
    #[error("all addresses of the private network are in use")]
    NoAddress,
}

impl NetworkError {
    pub(crate) fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}
