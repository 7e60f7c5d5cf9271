//! The engine behind BuildKit's API.
//!
//! A request becomes graphs ([`frontend`]), a graph's results are looked up or made ([`evaluate`]: sources, the walk against
//! the cache, jobs for the farm), and finished results go out through the exporters ([`output`]).

mod auth;
mod contexts;
mod entitlements;
mod evaluate;
mod foretold;
mod frontend;
mod history;
mod host;
mod images;
mod internal_step;
mod jobs;
mod locations;
mod missing;
mod needs;
mod output;
mod read;
mod room;
mod small_files;
mod sources;
mod state;
mod tocs;
mod walk;
mod wildcards;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use async_trait::async_trait;
use bollard_buildkit_proto::fsutil::types::Stat;
use bollard_buildkit_proto::moby::buildkit::v1::{DiskUsageRequest, PruneRequest, UsageRecord};
use bollard_buildkit_proto::pb;
use buildyard_layer::random_flat_id;
use buildyard_model::{BuildId, Chain, Platform, Scope};
use buildyard_registry::{Documents, Registry, RegistryConfig};
use buildyard_session::{Pack, PackError};
use buildyard_solver::Trees;
use buildyard_store::{Store, UnixMillis};
use tonic::Code;

use crate::backend::{
    Backend, Build, BuildError, ByteRange, ExporterSpec, ImageQuery, Ref, ResolvedConfig,
    SolveInput, Solved, What, WorkerView,
};
use crate::causes::with_causes;
use crate::farm::Farm;
use crate::keeper::Keeper;
use crate::layers::LayerStore;

/// How the engine builds.
#[derive(Debug, Clone, Default)]
pub struct EngineConfig {
    /// How registries are spoken to.
    pub registry: RegistryConfig,
}

/// The engine of one coordinator.
pub struct Engine {
    config: EngineConfig,
    store: Arc<dyn Store>,
    layers: Arc<LayerStore>,
    farm: Arc<Farm>,
    keeper: Arc<Keeper>,
    trees: Arc<Trees>,
    tocs: Arc<tocs::KnownTocs>,
    build_platform: Platform,
    scope: Scope,
    contexts: contexts::Contexts,
    foretold: Arc<foretold::Foretold>,
    documents: Arc<Documents>,
    builds: Mutex<HashMap<BuildId, Arc<state::BuildState>>>,
}

impl Engine {
    /// An engine over these parts. `build_platform` is the farm's stored setting.
    pub fn new(
        config: EngineConfig,
        store: Arc<dyn Store>,
        layers: Arc<LayerStore>,
        farm: Arc<Farm>,
        keeper: Arc<Keeper>,
        build_platform: Platform,
    ) -> Self {
        Self {
            config,
            store,
            farm,
            keeper,
            trees: Arc::default(),
            tocs: Arc::new(tocs::KnownTocs(layers.clone())),
            layers,
            build_platform,
            scope: Scope::new("default"),
            contexts: contexts::Contexts::default(),
            foretold: Arc::default(),
            documents: Arc::default(),
            builds: Mutex::default(),
        }
    }

    /// What is kept about a build; made at its first use. For what comes after its end nothing is kept.
    fn state(&self, build: &Arc<Build>) -> Arc<state::BuildState> {
        let mut builds = self.builds.lock().expect("nobody panics while holding it");
        if let Some(state) = builds.get(&build.id) {
            return state.clone();
        }
        let mut config = self.config.registry.clone();
        config.insecure.extend(insecure_registries(build));
        let auth = Arc::new(auth::SessionAuth(build.session.clone()));
        let hold = self.keeper.needs().hold();
        let registry = Registry::remembering(config, auth, self.documents.clone());
        let state = Arc::new(state::BuildState::new(registry, hold));
        if !build.cancel.is_cancelled() {
            builds.insert(build.id.clone(), state.clone());
        }
        state
    }

    /// A new pack for a context.
    fn pack(&self) -> Result<Box<dyn Pack>, BuildError> {
        let writer = self.layers.flats().writer().map_err(internal)?;
        Ok(Box::new(ContextPack(writer)))
    }

    async fn chain_of(&self, build: &Arc<Build>, reference: &Ref) -> Result<Chain, BuildError> {
        let state = self.state(build);
        let chains = self
            .evaluate_all(build, &state, &[reference.definition()])
            .await?;
        Ok(chains.into_iter().next().unwrap_or_default())
    }
}

/// Hosts for which an exporter of the build asks for plain HTTP.
fn insecure_registries(build: &Build) -> Vec<String> {
    let insecure = |exporter: &&ExporterSpec| {
        exporter
            .attrs
            .get("registry.insecure")
            .is_some_and(|v| v == "true")
    };
    let names = build
        .request
        .exporters
        .iter()
        .filter(insecure)
        .filter_map(|e| e.attrs.get("name"));
    names
        .flat_map(|names| names.split(','))
        .filter_map(|name| name.parse::<buildyard_registry::Reference>().ok())
        .map(|reference| reference.registry.clone())
        .collect()
}

#[async_trait]
impl Backend for Engine {
    async fn solve(&self, build: &Arc<Build>, input: SolveInput) -> Result<Solved, BuildError> {
        let state = self.state(build);
        let started = self.record_start(build, Some(&state));
        started.await.map_err(internal)?;
        let solved = match input.what {
            What::Definition(definition) => Solved {
                refs: crate::backend::Refs::Single(Ref::new(definition, ())),
                metadata: BTreeMap::new(),
            },
            What::Frontend {
                name,
                attrs,
                inputs,
            } => self.frontend(build, &state, &name, &attrs, &inputs).await?,
        };
        if input.evaluate {
            self.evaluate_solved(build, &state, &solved).await?;
        }
        Ok(solved)
    }

    async fn evaluate(&self, build: &Arc<Build>, reference: &Ref) -> Result<(), BuildError> {
        self.chain_of(build, reference).await.map(drop)
    }

    async fn read_file(
        &self,
        build: &Arc<Build>,
        reference: &Ref,
        path: &str,
        range: Option<ByteRange>,
    ) -> Result<Vec<u8>, BuildError> {
        let chain = self.chain_of(build, reference).await?;
        self.read_path(build, &chain, path, range).await
    }

    async fn read_dir(
        &self,
        build: &Arc<Build>,
        reference: &Ref,
        path: &str,
        include: &str,
    ) -> Result<Vec<Stat>, BuildError> {
        let chain = self.chain_of(build, reference).await?;
        self.list_path(build, &chain, path, include).await
    }

    async fn stat_file(
        &self,
        build: &Arc<Build>,
        reference: &Ref,
        path: &str,
    ) -> Result<Stat, BuildError> {
        let chain = self.chain_of(build, reference).await?;
        self.stat_path(build, &chain, path).await
    }

    async fn resolve_image(
        &self,
        build: &Arc<Build>,
        query: ImageQuery,
    ) -> Result<ResolvedConfig, BuildError> {
        let state = self.state(build);
        let platform = query
            .platform
            .as_ref()
            .map(platform_of)
            .unwrap_or_else(|| self.build_platform.clone());
        let image = self.resolve(&state, &query.reference, &platform).await?;
        Ok(ResolvedConfig {
            reference: image.reference.to_string(),
            digest: image
                .index_digest
                .unwrap_or(image.manifest_digest)
                .to_string(),
            config: image.config_bytes.to_vec(),
        })
    }

    async fn export(
        &self,
        build: &Arc<Build>,
        solved: Solved,
        exporters: Vec<ExporterSpec>,
    ) -> Result<BTreeMap<String, String>, BuildError> {
        let state = self.state(build);
        self.export_all(build, &state, &solved, exporters).await
    }

    fn worker(&self) -> WorkerView {
        let mut platforms = vec![self.build_platform.clone()];
        for worker in self.farm.known() {
            for platform in worker.native.iter().chain(&worker.emulated) {
                if !platforms.contains(platform) {
                    platforms.push(platform.clone());
                }
            }
        }
        WorkerView {
            id: "buildyard".to_owned(),
            labels: BTreeMap::from([
                (
                    "org.mobyproject.buildkit.worker.executor".to_owned(),
                    "oci".to_owned(),
                ),
                (
                    "org.mobyproject.buildkit.worker.hostname".to_owned(),
                    "buildyard".to_owned(),
                ),
                (
                    "org.mobyproject.buildkit.worker.snapshotter".to_owned(),
                    "overlayfs".to_owned(),
                ),
                (
                    "dev.buildyard.version".to_owned(),
                    env!("CARGO_PKG_VERSION").to_owned(),
                ),
            ]),
            platforms: platforms.iter().map(platform_to).collect(),
        }
    }

    async fn disk_usage(&self, request: DiskUsageRequest) -> Result<Vec<UsageRecord>, BuildError> {
        self.room_taken(&request).await
    }

    async fn prune(&self, request: PruneRequest) -> Result<Vec<UsageRecord>, BuildError> {
        self.pruned(&request).await
    }

    async fn finished(
        &self,
        build: &Arc<Build>,
        outcome: &Result<BTreeMap<String, String>, BuildError>,
    ) {
        let state = self
            .builds
            .lock()
            .expect("nobody panics while holding it")
            .remove(&build.id);
        if let Some(state) = &state {
            state.hold.let_go();
        }
        if let Err(error) = self.record_build(build, state.as_deref(), outcome).await {
            tracing::error!(build_id = %build.id, %error, "the build could not be written into the history");
        }
    }
}

/// A context's pack in a flat file.
struct ContextPack(buildyard_layer::FlatWriter);

impl Pack for ContextPack {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), PackError> {
        Ok(self.0.write_at(offset, bytes)?)
    }

    fn finish(self: Box<Self>, length: u64) -> Result<buildyard_model::FlatId, PackError> {
        let id = random_flat_id();
        self.0.set_len(length)?;
        self.0.commit(id)?;
        Ok(id)
    }
}

fn platform_of(platform: &pb::Platform) -> Platform {
    Platform::new(&platform.os, &platform.architecture, &platform.variant)
}

fn platform_to(platform: &Platform) -> pb::Platform {
    pb::Platform {
        os: platform.os.clone(),
        architecture: platform.architecture.clone(),
        variant: platform.variant.clone(),
        ..pb::Platform::default()
    }
}

/// The one place where the engine looks at the clock for what it stores.
fn now() -> UnixMillis {
    UnixMillis::from(SystemTime::now())
}

/// An error of the farm's own storage: logged here, where it stops; clients learn that it happened, and of what kind.
fn internal(error: impl std::error::Error) -> BuildError {
    let text = with_causes(&error);
    tracing::error!(error = text, "the coordinator's own storage failed");
    if let Some(said) = no_space(&text) {
        BuildError::new(Code::ResourceExhausted, said)
    } else {
        BuildError::new(
            Code::Internal,
            "the coordinator could not read or write its own storage; see its log",
        )
    }
}

/// What a client is told where an error says that the disk is full; the text names the disk where the error does.
fn no_space(text: &str) -> Option<String> {
    if let Some(at) = text.find("no space is left") {
        return Some(text[at..].to_owned());
    }
    let full = ["o space left", "disk is full", "uota exceeded"];
    full.iter().any(|words| text.contains(words)).then(|| {
        "no space is left on the disk of the coordinator's data directory; free some and build again"
            .to_owned()
    })
}
