//! The networks of steps: none, the host's, or a private one.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use crate::runner::UserNamespace;

/// A step's network.
#[derive(Debug, Clone)]
pub enum StepNetwork {
    /// A loopback device and nothing else.
    None,
    /// The worker's own.
    Host,
}

impl StepNetwork {
    /// Makes the network ready for one step.
    pub(crate) fn attach(&self, _user: Option<&UserNamespace>) -> Result<Attachment, NetworkError> {
        match self {
            Self::None => Ok(Attachment::Isolated),
            Self::Host => Ok(Attachment::Host),
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
    #[allow(dead_code)]
    Joined(Link),
}

/// A network namespace made ready for one step.
#[derive(Debug)]
pub(crate) struct Link {
    namespace: Arc<OwnedFd>,
}

impl Link {
    /// The namespace's path, as long as this lives.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            self.namespace.as_raw_fd()
        ))
    }
}

/// Why a step has no network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {}
