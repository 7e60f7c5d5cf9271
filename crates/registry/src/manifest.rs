//! Manifests and indexes as bytes, to and from a registry.

use buildyard_image::{Descriptor, Document, MAX_MANIFEST_SIZE, MediaTypes};
use buildyard_model::Digest;
use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use reqwest::{Response, StatusCode};

use crate::host::{Host, expect_success, pull_scope, push_scope, read_limited};
use crate::{Reference, Registry, RegistryError};

/// A document as it was served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The header `Content-Type`; may be empty.
    pub media_type: String,
    /// The bytes.
    pub bytes: Bytes,
    /// Their SHA-256, which is the one that was asked for if one was.
    pub digest: Digest,
}

impl Fetched {
    /// The document in the bytes.
    pub fn parse(&self, what: &Reference) -> Result<Document, RegistryError> {
        Document::parse(&self.media_type, &self.bytes).map_err(|cause| RegistryError::Document {
            what: what.to_string(),
            cause: cause.to_string(),
        })
    }
}

impl Registry {
    /// Fetches the manifest or index that a reference names.
    pub async fn manifest(&self, reference: &Reference) -> Result<Fetched, RegistryError> {
        let what = reference.to_string();
        let host = self.host(&what, reference.host()).await?;
        host.retry.run(|| get(&host, &what, reference)).await
    }

    /// What a reference names at the moment, without fetching it; `None` where there is nothing.
    pub async fn manifest_digest(
        &self,
        reference: &Reference,
    ) -> Result<Option<Descriptor>, RegistryError> {
        let scopes = [pull_scope(&reference.repository)];
        self.head(reference, &scopes).await
    }

    /// Whether the repository has the manifest or index of this digest, and so everything that it refers to.
    pub async fn has_manifest(
        &self,
        repository: &Reference,
        digest: Digest,
    ) -> Result<bool, RegistryError> {
        let scopes = [push_scope(&repository.repository)];
        let there = self.head(&repository.at(digest), &scopes).await?;
        Ok(there.is_some_and(|there| there.digest == digest))
    }

    /// Puts a manifest or index under a reference (tag or digest) unless it is there already; says whether it was sent.
    /// The blobs and manifests that it refers to must be there.
    pub async fn put_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<bool, RegistryError> {
        let what = format!("push {reference}");
        let digest = Digest::of(&bytes);
        let scopes = [push_scope(&reference.repository)];
        let there = self.head(reference, &scopes).await?;
        if there
            .is_some_and(|there| there.digest == digest && same_type(&there.media_type, media_type))
        {
            return Ok(false);
        }
        let host = self.host(&what, reference.host()).await?;
        let url = manifest_url(&host, reference);
        let put = || async {
            let sent = host.send(&what, &scopes, |http| {
                http.put(&url)
                    .header(CONTENT_TYPE, media_type)
                    .body(bytes.clone())
            });
            let response = expect_success(&what, &host.name, sent.await?).await?;
            check_named(&what, response.headers(), digest)
        };
        host.retry.run(put).await?;
        Ok(true)
    }

    async fn head(
        &self,
        reference: &Reference,
        scopes: &[String],
    ) -> Result<Option<Descriptor>, RegistryError> {
        let what = reference.to_string();
        let host = self.host(&what, reference.host()).await?;
        let url = manifest_url(&host, reference);
        let ask = || async {
            let sent = host.send(&what, scopes, |http| {
                http.head(&url).header(ACCEPT, accepted())
            });
            let response = sent.await?;
            if response.status() == StatusCode::NOT_FOUND {
                return Ok(None);
            }
            let response = expect_success(&what, &host.name, response).await?;
            match described(&response) {
                Some(descriptor) => Ok(Some(descriptor)),
                // The header is optional: then only the document tells.
                None => get(&host, &what, reference).await.map(|fetched| {
                    Some(Descriptor::new(
                        fetched.media_type,
                        fetched.digest,
                        fetched.bytes.len() as u64,
                    ))
                }),
            }
        };
        host.retry.run(ask).await
    }
}

/// A registry that names no type doesn't contradict.
fn same_type(there: &str, wanted: &str) -> bool {
    there.is_empty()
        || there
            .split(';')
            .next()
            .is_some_and(|name| name.trim() == wanted)
}

fn manifest_url(host: &Host, reference: &Reference) -> String {
    host.url(&format!(
        "{}/manifests/{}",
        reference.repository,
        reference.target()
    ))
}

/// The types of images, and any other so that what isn't an image can be named in the error.
fn accepted() -> String {
    let types = [MediaTypes::Oci, MediaTypes::Docker]
        .map(|types| format!("{}, {}", types.manifest(), types.index()));
    format!("{}, */*", types.join(", "))
}

async fn get(host: &Host, what: &str, reference: &Reference) -> Result<Fetched, RegistryError> {
    let url = manifest_url(host, reference);
    let scopes = [pull_scope(&reference.repository)];
    let response = host
        .send(what, &scopes, |http| {
            http.get(&url).header(ACCEPT, accepted())
        })
        .await?;
    let response = expect_success(what, &host.name, response).await?;
    let headers = response.headers().clone();
    let bytes = read_limited(what, &host.name, response, MAX_MANIFEST_SIZE).await?;
    let digest = Digest::of(&bytes);
    match reference.digest {
        Some(wanted) if wanted != digest => {
            return Err(damaged(what, format!("its bytes have the digest {digest}")));
        }
        Some(_) => {}
        None => check_named(what, &headers, digest)?,
    }
    Ok(Fetched {
        media_type: text(&headers, CONTENT_TYPE.as_str()),
        bytes,
        digest,
    })
}

/// Compares a digest with the one that the registry names, if it names one by SHA-256.
fn check_named(what: &str, headers: &HeaderMap, digest: Digest) -> Result<(), RegistryError> {
    match named_digest(headers) {
        Some(named) if named != digest => Err(damaged(
            what,
            format!("the registry calls it {named}, its bytes have the digest {digest}"),
        )),
        _ => Ok(()),
    }
}

fn damaged(what: &str, cause: String) -> RegistryError {
    RegistryError::Damaged {
        what: what.to_owned(),
        cause,
    }
}

fn named_digest(headers: &HeaderMap) -> Option<Digest> {
    text(headers, "docker-content-digest").parse().ok()
}

fn described(response: &Response) -> Option<Descriptor> {
    let headers = response.headers();
    let size = text(headers, CONTENT_LENGTH.as_str()).parse().unwrap_or(0);
    Some(Descriptor::new(
        text(headers, CONTENT_TYPE.as_str()),
        named_digest(headers)?,
        size,
    ))
}

fn text(headers: &HeaderMap, name: &str) -> String {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned()
}
