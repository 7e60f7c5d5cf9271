//! The seam between BuildKit's API and the engine.
//!
//! The API ([`crate::api`]) knows clients: sessions, messages, error details, capabilities. What is behind
//! [`Backend`] knows graphs, workers and images. A build is an `Arc<`[`Build`]`>`; whatever the engine solves for it
//! is a [`Ref`], which only the engine can look into.

mod build;
mod error;
mod solved;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bollard_buildkit_proto::fsutil::types::Stat;
use bollard_buildkit_proto::moby::buildkit::v1::{DiskUsageRequest, PruneRequest, UsageRecord};
use bollard_buildkit_proto::pb;
pub use build::{Build, BuildRequest, CacheSpec, ExporterSpec};
pub use error::{BuildError, SourceLocation};
pub use solved::{Ref, Refs, Solved};

/// What a client wants solved.
#[derive(Debug, Clone)]
pub struct SolveInput {
    /// The graph, or how to make it.
    pub what: What,
    /// Run every step before answering, so that failures show now and not at the export.
    pub evaluate: bool,
}

/// A graph, or how to make it.
#[derive(Debug, Clone)]
pub enum What {
    /// LLB as it is. Its last operation names the output.
    Definition(pb::Definition),
    /// A frontend makes it.
    Frontend {
        /// `dockerfile.v0`, `gateway.v0`.
        name: String,
        /// `filename`, `target`, `platform`, `build-arg:NAME`, `context:NAME`, `source`, `cmdline` …
        attrs: BTreeMap<String, String>,
        /// Graphs by name, for contexts given as `input:NAME`.
        inputs: BTreeMap<String, pb::Definition>,
    },
}

/// A part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteRange {
    /// First byte.
    pub offset: u64,
    /// Bytes at most; zero: to the end.
    pub length: u64,
}

/// Which image's configuration is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageQuery {
    /// The reference as the client wrote it, without `docker-image://`.
    pub reference: String,
    /// The platform to choose from an index; `None`: the farm's build platform.
    pub platform: Option<pb::Platform>,
    /// `default`, `pull` or `local`; empty is `default`.
    pub resolve_mode: String,
    /// Name of the step under which the look-up shows; empty: the engine's.
    pub log_name: String,
}

/// An image's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedConfig {
    /// The reference in full: `docker.io/library/alpine:latest`.
    pub reference: String,
    /// Digest of what the reference names: an index or a manifest.
    pub digest: String,
    /// The configuration's JSON.
    pub config: Vec<u8>,
}

/// The farm, as clients see a worker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkerView {
    /// Its id.
    pub id: String,
    /// `org.mobyproject.buildkit.worker.*` and the farm's own.
    pub labels: BTreeMap<String, String>,
    /// Every platform that the farm knows, its build platform first.
    pub platforms: Vec<pb::Platform>,
}

/// The engine behind BuildKit's API.
///
/// A call is made from a task of its own. When the build's token ([`Build::cancel`]) is cancelled, a call has a few
/// seconds to end on its own before it is dropped. Progress goes to [`Build::progress`]; failures come back as
/// [`BuildError`], with the step and its place in the source.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Solves. The result may be lazy unless `input.evaluate` is set.
    async fn solve(&self, build: &Arc<Build>, input: SolveInput) -> Result<Solved, BuildError>;

    /// Runs every step that `reference` still lacks.
    async fn evaluate(&self, build: &Arc<Build>, reference: &Ref) -> Result<(), BuildError>;

    /// Reads a file of a result, evaluating it first. A path that isn't there is [`BuildError::not_found`].
    async fn read_file(
        &self,
        build: &Arc<Build>,
        reference: &Ref,
        path: &str,
        range: Option<ByteRange>,
    ) -> Result<Vec<u8>, BuildError>;

    /// Lists a directory of a result, sorted by name; `include` is a pattern for names, empty for all. The stats'
    /// paths are names.
    async fn read_dir(
        &self,
        build: &Arc<Build>,
        reference: &Ref,
        path: &str,
        include: &str,
    ) -> Result<Vec<Stat>, BuildError>;

    /// Metadata of one path of a result; its path is the name. Symlinks at the end are not followed.
    async fn stat_file(
        &self,
        build: &Arc<Build>,
        reference: &Ref,
        path: &str,
    ) -> Result<Stat, BuildError>;

    /// Looks an image up.
    async fn resolve_image(
        &self,
        build: &Arc<Build>,
        query: ImageQuery,
    ) -> Result<ResolvedConfig, BuildError>;

    /// Exports the result, in every way asked for, and returns what goes into the response
    /// (`containerimage.digest` …). No exporters: evaluates, so that the build has run.
    async fn export(
        &self,
        build: &Arc<Build>,
        solved: Solved,
        exporters: Vec<ExporterSpec>,
    ) -> Result<BTreeMap<String, String>, BuildError>;

    /// The farm as one worker. Called often; must not wait.
    fn worker(&self) -> WorkerView;

    /// A build has ended, with this response or error. For the history.
    async fn finished(
        &self,
        _build: &Arc<Build>,
        _outcome: &Result<BTreeMap<String, String>, BuildError>,
    ) {
    }

    /// What the cache holds.
    async fn disk_usage(&self, _request: DiskUsageRequest) -> Result<Vec<UsageRecord>, BuildError> {
        Err(BuildError::new(
            tonic::Code::Unimplemented,
            "this builder cannot list its cache yet",
        ))
    }

    /// Removes cache entries and returns what was removed.
    async fn prune(&self, _request: PruneRequest) -> Result<Vec<UsageRecord>, BuildError> {
        Err(BuildError::new(
            tonic::Code::Unimplemented,
            "this builder's cache cannot be pruned by clients yet",
        ))
    }
}
