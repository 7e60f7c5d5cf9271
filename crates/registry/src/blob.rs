//! Blobs as streams, resumed where the connection breaks.

use std::io;
use std::sync::Arc;

use buildyard_image::Descriptor;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use oci_client::RegistryOperation;
use oci_client::client::BlobResponse;
use tokio::sync::OwnedSemaphorePermit;

use crate::host::{Host, Target, pull_scope};
use crate::retry::vary;
use crate::verify::Verifier;
use crate::{Reference, Registry, RegistryError};

/// Bytes on their way.
pub type BlobStream = BoxStream<'static, io::Result<Bytes>>;

/// The most times that one download is resumed, however far it gets each time.
const MAX_RESUMES: u32 = 50;

impl Registry {
    /// The blob of a repository as a stream. Its last bytes come only when all of them had the size and the digest that the
    /// descriptor promises; else an error comes in their place. Where the connection breaks it goes on from there.
    ///
    /// The stream counts as one of the registry's transfers until it is dropped: don't open many and read them in turn.
    pub async fn fetch_blob(
        &self,
        repository: &Reference,
        blob: &Descriptor,
    ) -> Result<BlobStream, RegistryError> {
        let what = format!("{}@{}", repository.name(), blob.digest);
        let host = self.host(&what, repository.host()).await?;
        let permit = host
            .pulls
            .clone()
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let digest = blob.digest.to_string();
        let download = Download {
            host,
            repository: repository.repository.clone(),
            digest,
            size: blob.size,
            what,
        };
        let opened = match blob.size {
            0 => None,
            _ => Some(download.host.retry.run(|| download.open(0)).await?),
        };
        let verifier = Verifier::new(&download.what, blob.digest, blob.size);
        let transfer = Transfer {
            download,
            verifier,
            body: opened,
            failed: 0,
            resumed: 0,
            _permit: permit,
        };
        let parts = futures::stream::try_unfold(transfer, |mut transfer| async move {
            Ok::<_, RegistryError>(transfer.next().await?.map(|bytes| (bytes, transfer)))
        });
        Ok(parts.map_err(io::Error::other).boxed())
    }
}

/// A download under way.
struct Transfer {
    download: Download,
    verifier: Verifier,
    body: Option<BlobStream>,
    /// Failures since the last bytes.
    failed: u32,
    resumed: u32,
    _permit: OwnedSemaphorePermit,
}

impl Transfer {
    async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        loop {
            if self.verifier.is_complete() {
                self.verifier.finish()?;
                return Ok(None);
            }
            let error = match self.advance().await {
                Ok(Some(bytes)) => {
                    self.failed = 0;
                    self.verifier.pass(&bytes)?;
                    return Ok(Some(bytes));
                }
                Ok(None) => self.broken("it ended early"),
                Err(error) => error,
            };
            self.body = None;
            self.failed += 1;
            self.resumed += 1;
            let retry = self.download.host.retry;
            let wait = retry
                .wait(self.failed, &error)
                .filter(|_| self.resumed <= MAX_RESUMES);
            let Some(wait) = wait else { return Err(error) };
            tracing::debug!(%error, blob = self.download.what, "download broke, resuming");
            tokio::time::sleep(vary(wait)).await;
        }
    }

    async fn advance(&mut self) -> Result<Option<Bytes>, RegistryError> {
        let mut body = match self.body.take() {
            Some(body) => body,
            None => self.download.open(self.verifier.seen()).await?,
        };
        let part = body
            .try_next()
            .await
            .map_err(|cause| self.broken(&innermost(&cause)))?;
        self.body = Some(body);
        Ok(part)
    }

    fn broken(&self, cause: &str) -> RegistryError {
        self.download.broken(cause, self.verifier.seen())
    }
}

/// What is downloaded, and from where.
struct Download {
    host: Arc<Host>,
    repository: String,
    digest: String,
    size: u64,
    what: String,
}

impl Download {
    /// Asks for what comes behind the first `offset` bytes.
    async fn open(&self, offset: u64) -> Result<BlobStream, RegistryError> {
        let target = Target {
            repository: &self.repository,
            digest: &self.digest,
            operation: RegistryOperation::Pull,
            scopes: vec![pull_scope(&self.repository)],
        };
        let digest = self.digest.as_str();
        let opened = self
            .host
            .with_client(&self.what, &target, |client, reference| async move {
                client
                    .pull_blob_stream_partial(&reference, digest, offset, None)
                    .await
            });
        match opened.await {
            Ok(BlobResponse::Partial(sized)) => Ok(sized.stream),
            Ok(BlobResponse::Full(sized)) => Ok(skip(sized.stream, offset)),
            Err(RegistryError::Refused { status: 416, .. }) => Err(RegistryError::Damaged {
                what: self.what.clone(),
                cause: format!("the registry has only {offset} of its {} bytes", self.size),
            }),
            Err(RegistryError::Interrupted { cause, .. }) => Err(self.broken(&cause, offset)),
            Err(error) => Err(error),
        }
    }

    fn broken(&self, cause: &str, seen: u64) -> RegistryError {
        RegistryError::Interrupted {
            what: self.what.clone(),
            cause: format!("{cause} after {seen} of {} bytes", self.size),
        }
    }
}

/// What comes behind the first `offset` bytes, for a registry that doesn't know ranges.
fn skip(stream: BlobStream, offset: u64) -> BlobStream {
    let mut left = offset;
    let rest = stream.try_filter_map(move |mut part| {
        let cut = left.min(part.len() as u64);
        left -= cut;
        // `cut` is at most the part's length, which is a usize.
        let part = part.split_off(cut as usize);
        std::future::ready(Ok((!part.is_empty()).then_some(part)))
    });
    rest.boxed()
}

fn innermost(error: &io::Error) -> String {
    let mut current: &dyn std::error::Error = error;
    while let Some(next) = current.source() {
        current = next;
    }
    current.to_string()
}
