//! The registries of one build.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use buildyard_model::Digest;
use tokio::sync::OnceCell;

use crate::host::Host;
use crate::{Auth, Reference, RegistryConfig, RegistryError};

/// Everything that one build's client may do with registries. Cheap to clone; the clones share connections and tokens.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    config: RegistryConfig,
    auth: Arc<dyn Auth>,
    hosts: Mutex<HashMap<String, Arc<OnceCell<Arc<Host>>>>>,
    flights: Mutex<HashMap<Flight, Arc<OnceCell<()>>>>,
}

/// A blob on its way to a repository: host, repository, digest.
type Flight = (String, String, Digest);

impl Registry {
    /// The registries as this client may use them. No connection is made yet.
    pub fn new(config: RegistryConfig, auth: Arc<dyn Auth>) -> Self {
        let (hosts, flights) = (Mutex::default(), Mutex::default());
        Self {
            inner: Arc::new(Inner {
                config,
                auth,
                hosts,
                flights,
            }),
        }
    }

    /// How registries are spoken to.
    pub fn config(&self) -> &RegistryConfig {
        &self.inner.config
    }

    /// The same client with these hosts taken for insecure (`registry.insecure=true`). Connects anew.
    pub fn allowing_insecure(&self, hosts: impl IntoIterator<Item = String>) -> Self {
        let mut config = self.inner.config.clone();
        config.insecure.extend(hosts);
        Self::new(config, self.inner.auth.clone())
    }

    /// The host, connected. A failure isn't remembered.
    pub(crate) async fn host(&self, what: &str, name: &str) -> Result<Arc<Host>, RegistryError> {
        let cell = {
            let mut hosts = self
                .inner
                .hosts
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            hosts.entry(name.to_owned()).or_default().clone()
        };
        let connect = || async {
            let auth = self.inner.auth.clone();
            Host::connect(what, name, &self.inner.config, auth)
                .await
                .map(Arc::new)
        };
        cell.get_or_try_init(connect).await.cloned()
    }

    pub(crate) fn flight(&self, repository: &Reference, blob: Digest) -> Arc<OnceCell<()>> {
        let key = (
            repository.host().to_owned(),
            repository.repository.clone(),
            blob,
        );
        self.inner
            .flights
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(key)
            .or_default()
            .clone()
    }
}
