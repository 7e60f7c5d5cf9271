//! Pull from and push to registries (OCI distribution specification v1.1).
//!
//! A [`Registry`] belongs to one build: it keeps the tokens and credentials that this build's client gave, and is
//! dropped with it. Never share one between clients. What it does:
//!
//! - [`Registry::resolve`]: a reference and a platform to the manifest, the configuration and the layers' descriptors;
//! - [`Registry::fetch_blob`]: a blob as a stream, checked against digest and size, resumed where the connection breaks;
//! - [`Registry::push_blob`]: a blob into a repository: found there, mounted from another repository, or uploaded;
//! - [`Registry::put_manifest`]: a manifest or index under a tag or digest, where it isn't there yet.
//!
//! Everything is bounded: sizes of documents, redirects, retries, times, and the transfers per registry at one time.
//! Manifests and configurations that were read are kept for later builds ([`Documents`]). Here is no cache of layers and no
//! knowledge of what is in one.

mod auth;
mod authorizer;
mod blob;
mod challenge;
mod config;
mod documents;
mod error;
mod host;
mod manifest;
mod push;
mod reference;
mod registry;
mod resolve;
mod retry;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod tls;
mod verify;

pub use auth::{Auth, AuthError, Credentials, FixedAuth, NoAuth, Token, TokenRequest};
pub use blob::BlobStream;
pub use config::RegistryConfig;
pub use documents::Documents;
pub use error::RegistryError;
pub use manifest::Fetched;
pub use push::{BlobSource, Pushed};
pub use reference::{ParseReferenceError, Reference};
pub use registry::Registry;
pub use resolve::{PulledLayer, Resolved};
pub use retry::Retry;
pub use tls::install_crypto_provider;
pub use verify::verified;
