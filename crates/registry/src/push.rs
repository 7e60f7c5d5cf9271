//! Blobs into a repository: each once, the cheapest way there is.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use buildyard_image::Descriptor;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use oci_client::RegistryOperation;
use oci_client::errors::OciDistributionError;
use reqwest::StatusCode;
use reqwest::header::CONTENT_LENGTH;

use crate::host::{Host, Target, expect_success, pull_scope, push_scope};
use crate::{BlobStream, Reference, Registry, RegistryError, verified};

/// Where a blob's bytes come from. Opened again for each try.
#[async_trait]
pub trait BlobSource: Send + Sync {
    /// All of the bytes, from the first on.
    async fn open(&self) -> io::Result<BlobStream>;

    /// Whether the stream checks itself: an error comes in place of the last bytes where they are not those of the blob. Bytes
    /// of other sources are hashed on their way.
    fn is_verified(&self) -> bool {
        false
    }
}

#[async_trait]
impl BlobSource for Bytes {
    async fn open(&self) -> io::Result<BlobStream> {
        let bytes = self.clone();
        Ok(futures::stream::once(std::future::ready(Ok(bytes))).boxed())
    }
}

/// How a blob came to be in a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It was there, or came there by another call of this build.
    Existed,
    /// The registry took it from another of its repositories.
    Mounted,
    /// Its bytes were sent.
    Uploaded,
}

impl Registry {
    /// Sees to it that `repository` has the blob. If it has not, it is mounted from `origin` (a repository that is
    /// known to have it) where that is in the same registry and the registry agrees, else uploaded from `source`.
    /// However many ask at one time, it is done once.
    pub async fn push_blob(
        &self,
        repository: &Reference,
        blob: &Descriptor,
        origin: Option<&Reference>,
        source: &dyn BlobSource,
    ) -> Result<Pushed, RegistryError> {
        let what = format!("push {}@{}", repository.name(), blob.digest);
        let host = self.host(&what, repository.host()).await?;
        let flight = self.flight(repository, blob.digest);
        let mut pushed = Pushed::Existed;
        let done = flight.get_or_try_init(|| async {
            let origin = origin
                .filter(|origin| origin.host() == host.name)
                .map(|origin| origin.repository.as_str());
            let push = Push {
                host: &host,
                what: &what,
                repository: &repository.repository,
                blob,
            };
            pushed = push.run(origin, source).await?;
            Ok::<_, RegistryError>(())
        });
        done.await?;
        Ok(pushed)
    }

    /// Whether `repository` has the blob.
    pub async fn has_blob(
        &self,
        repository: &Reference,
        blob: &Descriptor,
    ) -> Result<bool, RegistryError> {
        let what = format!("{}@{}", repository.name(), blob.digest);
        let host = self.host(&what, repository.host()).await?;
        let scope = pull_scope(&repository.repository);
        Push {
            host: &host,
            what: &what,
            repository: &repository.repository,
            blob,
        }
        .is_there(scope)
        .await
    }
}

/// One blob on its way to one repository.
struct Push<'a> {
    host: &'a Host,
    what: &'a str,
    repository: &'a str,
    blob: &'a Descriptor,
}

impl Push<'_> {
    async fn run(
        &self,
        origin: Option<&str>,
        source: &dyn BlobSource,
    ) -> Result<Pushed, RegistryError> {
        let permit = self.host.pushes.acquire().await;
        let _permit = permit.expect("the semaphore is never closed");
        if self.is_there(push_scope(self.repository)).await? {
            return Ok(Pushed::Existed);
        }
        if let Some(origin) = origin.filter(|origin| *origin != self.repository) {
            match self.mount(origin).await {
                Ok(true) => return Ok(Pushed::Mounted),
                Ok(false) => {}
                Err(error) => {
                    tracing::debug!(%error, blob = self.what, origin, "mount failed, uploading")
                }
            }
        }
        let uploaded = self.host.retry.run(|| self.upload(source)).await;
        if let Err(RegistryError::Source { cause, .. }) = &uploaded {
            // The source may have thrown a damaged copy away, and make another when it is opened next.
            tracing::warn!(
                blob = self.what,
                cause,
                "the bytes to upload failed, once more"
            );
            self.host.retry.run(|| self.upload(source)).await?;
            return Ok(Pushed::Uploaded);
        }
        uploaded.map(|()| Pushed::Uploaded)
    }

    async fn is_there(&self, scope: String) -> Result<bool, RegistryError> {
        let url = self
            .host
            .url(&format!("{}/blobs/{}", self.repository, self.blob.digest));
        let scopes = [scope];
        let ask = || async {
            let response = self
                .host
                .send(self.what, &scopes, |http| http.head(&url))
                .await?;
            if response.status() == StatusCode::NOT_FOUND {
                return Ok(false);
            }
            expect_success(self.what, &self.host.name, response)
                .await
                .map(|_| true)
        };
        self.host.retry.run(ask).await
    }

    /// Asks the registry to take the blob from `origin`. It may decline and offer an upload instead (202): `false`.
    async fn mount(&self, origin: &str) -> Result<bool, RegistryError> {
        let url = self
            .host
            .url(&format!("{}/blobs/uploads/", self.repository));
        let digest = self.blob.digest.to_string();
        let query = [("mount", digest.as_str()), ("from", origin)];
        let scopes = [push_scope(self.repository), pull_scope(origin)];
        let post = |http: &reqwest::Client| http.post(&url).query(&query).header(CONTENT_LENGTH, 0);
        let response = self.host.send(self.what, &scopes, post).await?;
        let response = expect_success(self.what, &self.host.name, response).await?;
        Ok(response.status() == StatusCode::CREATED)
    }

    async fn upload(&self, source: &dyn BlobSource) -> Result<(), RegistryError> {
        let digest = self.blob.digest.to_string();
        let target = Target {
            repository: self.repository,
            digest: &digest,
            operation: RegistryOperation::Push,
            scopes: vec![push_scope(self.repository)],
        };
        let failure = Failure::default();
        let sent = self
            .host
            .with_client(self.what, &target, |client, reference| {
                let (failure, digest) = (failure.clone(), digest.as_str());
                async move {
                    let opened = source.open().await.map_err(|cause| failure.keep(cause))?;
                    let bytes = match source.is_verified() {
                        true => opened,
                        false => verified(opened, self.what, self.blob.digest, self.blob.size),
                    };
                    let bytes = bytes.map_err(move |cause| failure.keep(cause));
                    client
                        .push_blob_stream(&reference, bytes, digest, Some(self.blob.size))
                        .await
                }
            });
        match (sent.await, failure.take()) {
            (Ok(_), _) => Ok(()),
            (Err(_), Some(cause)) => Err(RegistryError::Source {
                what: self.what.to_owned(),
                cause,
            }),
            (Err(error), None) => Err(error),
        }
    }
}

/// Remembers why the source failed: to the network library a body that fails is a connection that broke.
#[derive(Clone, Default)]
struct Failure(Arc<Mutex<Option<String>>>);

impl Failure {
    fn keep(&self, cause: io::Error) -> OciDistributionError {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(cause.to_string());
        OciDistributionError::IoError(cause)
    }

    fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
