//! What a cached build costs in transactions and messages, counted.

use buildyard_cas::MemoryBlobs;
use buildyard_dockerfile::{Conversion, Images, Options, Source, convert, parse};
use buildyard_layer::{Entry, FlatFiles, Kind, Time, Toc};
use buildyard_llb::pb;
use buildyard_model::{BuildId, Digest, JobId, Platform, WorkerId};
use buildyard_session::{Attached, Sessions};
use buildyard_store::{
    Claim, ClaimKey, ClaimedBy, Claims, HeldClaim, LayerRecord, SqliteStore, UnixMillis,
};
use futures::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;

use super::*;
use crate::backend::{Build, BuildRequest};
use crate::engine::EngineConfig;
use crate::farm::{Farm, FarmConfig};
use crate::keeper::{Keeper, KeeperConfig};
use crate::layers::LayerStore;
use crate::progress::Progress;

/// Of the walk: one look-up of results, one of their layers.
const TRANSACTIONS: u64 = 2;
/// All steps of a cached build are told in one.
const MESSAGES: usize = 1;

/// An engine whose farm keeps its own records elsewhere: what is counted is the engine's doing.
struct Rig {
    engine: Engine,
    store: Arc<SqliteStore>,
    sessions: Sessions,
    _attached: Attached,
    _dir: tempfile::TempDir,
}

fn native() -> Platform {
    Platform::new("linux", "amd64", "")
}

impl Rig {
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = Arc::new(SqliteStore::in_memory().await.expect("opened"));
        let flats = FlatFiles::new(dir.path().join("flats")).expect("opened");
        let config = KeeperConfig::default();
        let opened = Keeper::open(
            &config,
            dir.path().to_owned(),
            store.clone(),
            Arc::new(MemoryBlobs::default()),
            flats,
        );
        let (keeper, _) = opened.await.expect("opened");
        let layers = LayerStore::new(store.clone(), keeper.blobs(), keeper.flats());
        let layers = Arc::new(layers);
        let elsewhere = Arc::new(SqliteStore::in_memory().await.expect("opened"));
        let (config, cancel) = (FarmConfig::default(), CancellationToken::new());
        let farm = Farm::start(config, elsewhere, layers.clone(), cancel);
        let farm = farm.await.expect("started");
        let config = EngineConfig::default();
        let engine = Engine::new(config, store.clone(), layers, farm, keeper, native());
        let sessions = Sessions::default();
        let mut metadata = MetadataMap::new();
        metadata.insert("x-docker-expose-session-uuid", "s".parse().expect("ASCII"));
        let attached = sessions.attach(&metadata, futures::stream::pending());
        Self {
            engine,
            store,
            _attached: attached.expect("attached"),
            sessions,
            _dir: dir,
        }
    }

    async fn build(&self, id: &str) -> Arc<Build> {
        let session = self.sessions.get("s", std::time::Duration::from_secs(60));
        Arc::new(Build {
            id: BuildId::new(id),
            session: session.await.expect("it is open"),
            progress: Arc::new(Progress::default()),
            cancel: CancellationToken::new(),
            request: BuildRequest::default(),
            created: SystemTime::now(),
        })
    }

    /// Evaluates a definition all of whose steps have results. Returns what it yields, and the transactions it took.
    async fn cached(&self, id: &str, definition: &pb::Definition) -> (Chain, u64) {
        let build = self.build(id).await;
        let state = self.engine.state(&build);
        let before = self.store.transactions();
        let definitions = [definition];
        let outcome = self.engine.evaluate_all(&build, &state, &definitions);
        let mut chains = outcome.await.expect("it is cached");
        let took = self.store.transactions() - before;
        build.progress.finish(SystemTime::now());
        let messages: Vec<_> = build.progress.subscribe().collect().await;
        assert_eq!(messages.len(), MESSAGES);
        (chains.remove(0), took)
    }

    /// Records a result for every step.
    async fn record(&self, definition: &pb::Definition) {
        let loaded = buildyard_llb::Graph::load(&[definition], Default::default());
        let (graph, _) = loaded.expect("a sound graph");
        let mut results: Vec<Chain> = Vec::new();
        for (number, step) in graph.steps().iter().enumerate() {
            let inputs = step.inputs.iter().map(|input| results[input.step].clone());
            let inputs: Vec<Chain> = inputs.collect();
            let (trees, tocs) = (&self.engine.trees, self.engine.tocs.as_ref());
            let key = buildyard_solver::key(step, &inputs, trees, tocs).await;
            let key = key.expect("it has a key").expect("all tables are known");
            let below = inputs.first().cloned().unwrap_or_default();
            let layer = self.layer(number).await;
            let chain = below.with(layer.id);
            self.complete(key, chain.clone(), layer).await;
            results.push(chain);
        }
    }

    /// A layer with the file `out`, which says `number`.
    async fn layer(&self, number: usize) -> LayerRecord {
        let content = number.to_string();
        let kind = Kind::File {
            size: 0,
            content: Digest::of(content),
            extents: Vec::new(),
            ino: 0,
        };
        let toc = Toc {
            entries: vec![Entry {
                path: b"out".to_vec(),
                kind,
                mode: 0o644,
                uid: 0,
                gid: 0,
                mtime: Time::default(),
                xattrs: Default::default(),
            }],
            ..Toc::default()
        };
        let (id, bytes, worker) = (toc.layer_id(), toc.encode(), WorkerId::new("w"));
        let made = self
            .engine
            .layers
            .made(id, &bytes, &worker, true, UnixMillis(1));
        made.await.expect("a sound layer")
    }

    async fn complete(&self, key: StepKey, chain: Chain, layer: LayerRecord) {
        let claim = ClaimKey::shared(key, self.engine.scope.clone());
        let by = ClaimedBy {
            worker: WorkerId::new("w"),
            job: JobId::new("j"),
            build: BuildId::new("before"),
            step: buildyard_model::StepDigest(key.digest()),
        };
        let (now, ttl) = (UnixMillis(1), std::time::Duration::from_secs(60));
        let claimed = self.store.claim_step(&claim, &by, now, ttl).await;
        let Claim::Run { generation } = claimed.expect("asked") else {
            panic!("the key is another step's too");
        };
        let held = HeldClaim { claim, generation };
        let result = StepResult {
            outputs: vec![Some(chain)],
            created: now,
            duration: ttl,
            worker: by.worker,
            platform: None,
            emulated: false,
            build: by.build,
            name: String::new(),
            log: None,
        };
        let completed = self.store.complete(&held, &result, &[layer], now).await;
        completed.expect("recorded");
    }
}

fn definition(dockerfile: &str) -> pb::Definition {
    let source = Source {
        filename: "Dockerfile",
        bytes: dockerfile.as_bytes(),
    };
    let file = parse(&source).expect("it parses");
    let options = Options::from_attrs(&Default::default(), &native()).expect("sound attributes");
    match convert(&file, &options, &Images::new(), &[]).expect("it converts") {
        Conversion::Done(mut build) => build.targets.remove(0).definition,
        Conversion::NeedsImages(_) => panic!("it names no image"),
    }
}

fn chain(steps: usize) -> pb::Definition {
    let steps = (0..steps).map(|step| format!("RUN echo {step}\n"));
    definition(&format!("FROM scratch\n{}", steps.collect::<String>()))
}

fn fan(stages: usize) -> pb::Definition {
    let stage = |number| format!("FROM scratch AS s{number}\nRUN echo {number}\n");
    let copy = |number| format!("COPY --from=s{number} /out /{number}\n");
    let stages_text: String = (0..stages).map(stage).collect();
    let copies: String = (0..stages).map(copy).collect();
    definition(&format!("{stages_text}FROM scratch\n{copies}"))
}

async fn check(definition: pb::Definition) {
    let rig = Rig::new().await;
    rig.record(&definition).await;
    let (first, _) = rig.cached("first", &definition).await;
    let (second, took) = rig.cached("second", &definition).await;
    assert_eq!(took, TRANSACTIONS);
    assert_eq!(second, first);
}

#[tokio::test]
async fn a_cached_build_asks_the_store_twice_whatever_its_shape() {
    for size in [3, 60] {
        check(chain(size)).await;
        check(fan(size)).await;
    }
}

#[tokio::test]
async fn what_was_not_foretold_is_asked_for_level_by_level() {
    let (rig, definition) = (Rig::new().await, fan(40));
    rig.record(&definition).await;
    let (_, took) = rig.cached("first", &definition).await;
    // The stages together, then one COPY after the other: each needs the one before.
    assert_eq!(took, (1 + 40) * TRANSACTIONS);
}

#[tokio::test]
async fn a_key_that_was_foretold_wrongly_is_not_used() {
    let (rig, definition) = (Rig::new().await, chain(3));
    rig.record(&definition).await;
    let (right, _) = rig.cached("first", &definition).await;
    let (graph, _) = buildyard_llb::Graph::load(&[&definition], Default::default()).expect("sound");
    let other = StepKey(Digest::of("another step's"));
    let layer = rig.layer(99).await;
    rig.complete(other, Chain::new(vec![layer.id]), layer).await;
    for step in graph.steps() {
        rig.engine.foretold.note(step.digest, other);
    }
    let (chain, _) = rig.cached("second", &definition).await;
    assert_eq!(chain, right);
}
