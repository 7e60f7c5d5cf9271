//! A small registry in this process, for tests: the distribution API over memory, with the authentication that real
//! ones have and the failures that they show on bad days. No replacement for a real one: tests of formats use that.

mod auth;
mod faults;
mod serve;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use buildyard_image::{CompressionKind, Descriptor, ImageConfig, Index, Manifest, MediaTypes};
use buildyard_model::{Digest, Platform};
use bytes::Bytes;

pub use auth::Guard;
pub use faults::{Fault, Trouble};

use crate::Reference;

/// A registry that serves until it is dropped.
pub struct TestRegistry {
    address: SocketAddr,
    state: Arc<State>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
}

/// What a registry holds, and what it was asked.
#[derive(Default)]
pub(crate) struct State {
    content: Mutex<Content>,
    guard: Guard,
    /// Whether mounts are declined with 202.
    pub(crate) declines_mounts: bool,
    base: Mutex<String>,
}

#[derive(Default)]
pub(crate) struct Content {
    /// By repository and digest.
    pub(crate) blobs: HashMap<(String, String), Bytes>,
    /// By repository and tag or digest: media type and bytes.
    pub(crate) manifests: HashMap<(String, String), (String, Bytes)>,
    /// Uploads that were begun.
    pub(crate) uploads: u64,
    /// `METHOD path` of each request, without the query.
    pub(crate) log: Vec<String>,
    pub(crate) faults: Vec<Fault>,
}

impl State {
    pub(crate) fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn base(&self) -> String {
        self.base
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl TestRegistry {
    /// Starts an open registry on a loopback address.
    pub async fn start() -> Self {
        Self::with(Guard::Open, false).await
    }

    /// Starts a registry that lets in whom `guard` says.
    pub async fn with(guard: Guard, declines_mounts: bool) -> Self {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
            .await
            .expect("loopback has free ports");
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        let state = Arc::new(State {
            guard,
            declines_mounts,
            ..State::default()
        });
        *state.base.lock().unwrap_or_else(PoisonError::into_inner) = format!("http://{address}");
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let router = serve::router(state.clone());
        tokio::spawn(async move {
            let ended = async move { drop(stopped.await) };
            tokio::select! {
                served = axum::serve(listener, router) => served.expect("serving a bound socket doesn't end"),
                () = ended => {}
            }
        });
        Self {
            address,
            state,
            stop: Some(stop),
        }
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// The reference of `name` (`repository:tag`) here.
    pub fn reference(&self, name: &str) -> Reference {
        format!("{}/{name}", self.host())
            .parse()
            .expect("the test's names are well formed")
    }

    /// From now on `fault` happens.
    pub fn inject(&self, fault: Fault) {
        self.state.content().faults.push(fault);
    }

    /// `METHOD path` of the requests since the last call, without queries.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.content().log)
    }

    /// Puts a blob into a repository.
    pub fn put_blob(&self, repository: &str, bytes: impl Into<Bytes>) -> Descriptor {
        let bytes = bytes.into();
        let descriptor = Descriptor::of("application/octet-stream", &bytes);
        self.put_blob_as(repository, &descriptor.digest, bytes);
        descriptor
    }

    /// Puts bytes under a digest that may not be theirs.
    pub fn put_blob_as(&self, repository: &str, digest: &Digest, bytes: impl Into<Bytes>) {
        let key = (repository.to_owned(), digest.to_string());
        self.state.content().blobs.insert(key, bytes.into());
    }

    /// A blob of a repository.
    pub fn blob(&self, repository: &str, digest: &Digest) -> Option<Bytes> {
        self.state
            .content()
            .blobs
            .get(&(repository.to_owned(), digest.to_string()))
            .cloned()
    }

    /// Puts a manifest or index under its digest and `tag`.
    pub fn put_manifest(
        &self,
        repository: &str,
        tag: &str,
        media_type: &str,
        bytes: impl Into<Bytes>,
    ) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::of(&bytes);
        let mut content = self.state.content();
        for name in [tag.to_owned(), digest.to_string()] {
            content.manifests.insert(
                (repository.to_owned(), name),
                (media_type.to_owned(), bytes.clone()),
            );
        }
        digest
    }

    /// What is under a tag or digest: media type and bytes.
    pub fn manifest(&self, repository: &str, name: &str) -> Option<(String, Bytes)> {
        self.state
            .content()
            .manifests
            .get(&(repository.to_owned(), name.to_owned()))
            .cloned()
    }

    /// Puts an image of one layer for each platform under an index. Layers hold their platform's name, are no archives,
    /// and their diff ids are those of the bytes.
    pub fn put_image(&self, repository: &str, tag: &str, platforms: &[Platform]) -> Digest {
        let types = MediaTypes::Oci;
        let entries = platforms.iter().map(|platform| {
            let manifest = self.put_platform(repository, platform);
            let bytes = manifest.to_bytes();
            let mut entry = Descriptor::of(types.manifest(), &bytes);
            self.put_manifest(
                repository,
                &entry.digest.to_string(),
                types.manifest(),
                bytes,
            );
            entry.platform = Some(platform.into());
            entry
        });
        let index = Index::new(types, entries.collect());
        self.put_manifest(repository, tag, types.index(), index.to_bytes())
    }

    /// Puts one platform's configuration and layer, and says what its manifest is.
    pub fn put_platform(&self, repository: &str, platform: &Platform) -> Manifest {
        let types = MediaTypes::Oci;
        let mut layer = self.put_blob(repository, format!("layer of {platform}"));
        layer.media_type = types.layer(CompressionKind::Uncompressed);
        let mut config = ImageConfig {
            architecture: platform.architecture.clone(),
            variant: platform.variant.clone(),
            os: platform.os.clone(),
            ..ImageConfig::default()
        };
        config.rootfs.diff_ids.push(layer.digest.to_string());
        let mut described = self.put_blob(repository, config.to_bytes());
        described.media_type = types.config().to_owned();
        Manifest::new(types, described, vec![layer])
    }
}

impl Drop for TestRegistry {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // The server may have ended with its runtime already.
            let _ = stop.send(());
        }
    }
}
