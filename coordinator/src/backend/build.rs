//! One client request.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use buildyard_model::BuildId;
use buildyard_session::Session;
use tokio_util::sync::CancellationToken;

use crate::progress::Progress;

/// A build that is going on.
#[derive(Debug)]
pub struct Build {
    /// Chosen by the client; its `Ref`.
    pub id: BuildId,
    /// The client's session: files, credentials, secrets, and where exports go.
    pub session: Arc<Session>,
    /// Where steps and logs are told.
    pub progress: Arc<Progress>,
    /// Cancelled when the client gives up or is gone, and when the coordinator stops.
    pub cancel: CancellationToken,
    /// What was asked for.
    pub request: BuildRequest,
    /// When it was asked for.
    pub created: SystemTime,
}

/// What a client asked for in `Control.Solve`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BuildRequest {
    /// The frontend's name; empty where the client drives the build through the gateway, or sends LLB.
    pub frontend: String,
    /// The frontend's attributes. Through the gateway too: clients send them along for the record.
    pub attrs: BTreeMap<String, String>,
    /// `network.host` and the like, that the client allows.
    pub entitlements: Vec<String>,
    /// Where results go; the index is the exporter's number in the session.
    pub exporters: Vec<ExporterSpec>,
    /// `--cache-from`.
    pub cache_imports: Vec<CacheSpec>,
    /// `--cache-to`.
    pub cache_exports: Vec<CacheSpec>,
    /// Not for the history.
    pub internal: bool,
}

/// An output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExporterSpec {
    /// Its number in the session: `exporter` of [`Session::send_stream`] and [`Session::send_dir`].
    pub index: usize,
    /// `image`, `oci`, `docker`, `local`, `tar`.
    pub kind: String,
    /// `name`, `push`, `dest` …
    pub attrs: BTreeMap<String, String>,
}

/// A place to import a cache from or export it to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheSpec {
    /// `registry`, `local`, `inline`, `gha`, `s3`, `azblob`.
    pub kind: String,
    /// `ref`, `mode` …
    pub attrs: BTreeMap<String, String>,
}
