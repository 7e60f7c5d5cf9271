//! The registries of one build.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use buildyard_model::Digest;
use tokio::sync::OnceCell;

use crate::host::Host;
use crate::{Auth, Documents, Fetched, Reference, RegistryConfig, RegistryError};

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
    /// What names stand for in this build: the same for all of its platforms.
    named: Mutex<HashMap<String, Arc<OnceCell<Fetched>>>>,
    documents: Arc<Documents>,
}

/// A blob on its way to a repository: host, repository, digest.
type Flight = (String, String, Digest);

impl Registry {
    /// The registries as this client may use them. No connection is made yet.
    pub fn new(config: RegistryConfig, auth: Arc<dyn Auth>) -> Self {
        Self::remembering(config, auth, Arc::default())
    }

    /// The same; documents are taken from `documents` where they are there, and put there.
    pub fn remembering(
        config: RegistryConfig,
        auth: Arc<dyn Auth>,
        documents: Arc<Documents>,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                config,
                auth,
                hosts: Mutex::default(),
                flights: Mutex::default(),
                named: Mutex::default(),
                documents,
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
        let (auth, documents) = (self.inner.auth.clone(), self.inner.documents.clone());
        Self::remembering(config, auth, documents)
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

    /// What was read before.
    pub(crate) fn documents(&self) -> &Documents {
        &self.inner.documents
    }

    /// The document that a reference names, asked for once in this build.
    pub(crate) async fn named(&self, reference: &Reference) -> Result<Fetched, RegistryError> {
        let cell = {
            let mut named = self
                .inner
                .named
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            named.entry(reference.to_string()).or_default().clone()
        };
        let fetched = cell.get_or_try_init(|| self.manifest(reference)).await?;
        self.documents().keep_manifest(reference, fetched);
        Ok(fetched.clone())
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
