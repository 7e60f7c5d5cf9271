//! A coordinator, assembled: stores, farm, engine, API, endpoint. The one place that knows them all.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use buildyard_cas::{DirGuard, Durability, lock_data_dir, open_disk};
use buildyard_layer::FlatFiles;
use buildyard_model::Platform;
use buildyard_proto::v1::farm_server::FarmServer;
use buildyard_registry::RegistryConfig;
use buildyard_store::{SqliteStore, Store, UnixMillis};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::{Channel, Endpoint as Dial};

use crate::api::Api;
use crate::backend::Backend;
use crate::endpoint::{Address, Endpoint, EndpointConfig};
use crate::engine::{Engine, EngineConfig};
use crate::farm::{Farm, FarmConfig, FarmService, MAX_MESSAGE_BYTES};
use crate::keeper::{Keeper, KeeperConfig};
use crate::layers::LayerStore;
use crate::web;

/// Bytes on their way between the coordinator and a worker in the same process.
const IN_PROCESS_BUFFER: usize = 1 << 20;

/// What a coordinator is started with.
#[derive(Debug, Clone)]
pub struct CoordinatorConfig {
    /// Where everything is kept.
    pub data: PathBuf,
    /// The database's file; in `data` if none is given.
    pub database: Option<PathBuf>,
    /// The directory of the blobs and flat files; in `data` if none is given.
    pub blobs: Option<PathBuf>,
    /// Where it listens.
    pub endpoint: EndpointConfig,
    /// How registries are spoken to.
    pub registry: RegistryConfig,
    /// How workers are treated.
    pub farm: FarmConfig,
    /// How much room the store may take.
    pub keeper: KeeperConfig,
    /// BUILDPLATFORM from now on; what is stored if none is given, and this machine's platform at first.
    pub build_platform: Option<Platform>,
    /// How long builds may go on after a request to stop.
    pub grace: Duration,
}

/// A coordinator whose sockets are open.
pub struct Coordinator {
    endpoint: Endpoint,
    api: Api,
    farm: Arc<Farm>,
    store: Arc<SqliteStore>,
    flats: FlatFiles,
    router: axum::Router,
    grace: Duration,
    /// Cancelled when the builds that are left must end.
    cancel: CancellationToken,
    /// Cancelled when the farm has ended.
    farm_ended: CancellationToken,
    /// Cancelled when nothing is written any more.
    keep_until: CancellationToken,
    tasks: TaskTracker,
    _data: DirGuard,
}

impl Coordinator {
    /// Opens the data directory and the sockets.
    ///
    /// # Errors
    /// The data directory is another process's or cannot be used; an address cannot be listened on.
    pub async fn open(config: CoordinatorConfig) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&config.data)
            .with_context(|| format!("making the data directory {}", config.data.display()))?;
        let guard = lock_data_dir(&config.data, "coordinator")?;
        let database = config
            .database
            .clone()
            .unwrap_or_else(|| config.data.join("buildyard.db"));
        let blob_dir = config.blobs.clone().unwrap_or_else(|| config.data.clone());
        let store = Arc::new(SqliteStore::open(&database).await?);
        let abandoned = buildyard_store::Builds::abandon_running(store.as_ref(), now()).await?;
        if abandoned > 0 {
            tracing::warn!(
                builds = abandoned,
                "builds were interrupted by the end of the last process"
            );
        }
        let blobs = open_disk(&blob_dir, Durability::Synced).await?;
        let flats = FlatFiles::new(blob_dir.join("flats"))
            .with_context(|| format!("opening the flat files in {}", blob_dir.display()))?;
        let shared: Arc<dyn Store> = store.clone();
        let (keeper, keeping) = Keeper::open(
            &config.keeper,
            blob_dir,
            shared.clone(),
            Arc::new(blobs),
            flats,
        )
        .await?;
        let flats = keeper.flats();
        let layers = Arc::new(LayerStore::new(
            shared.clone(),
            keeper.blobs(),
            flats.clone(),
        ));
        let build_platform = build_platform(store.as_ref(), config.build_platform).await?;
        let cancel = CancellationToken::new();
        // Not with the builds: what they leave has to be told to the workers.
        let farm_ended = CancellationToken::new();
        let farm = Farm::start(
            config.farm,
            shared.clone(),
            layers.clone(),
            farm_ended.clone(),
        )
        .await?;
        let engine_config = EngineConfig {
            registry: config.registry,
        };
        let engine: Arc<dyn Backend> = Arc::new(Engine::new(
            engine_config,
            shared.clone(),
            layers,
            farm.clone(),
            keeper,
            build_platform,
        ));
        let api = Api::new(engine, cancel.clone());
        let farm_service = FarmServer::new(FarmService::new(farm.clone()))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let router = web::router(web::Shared {
            farm: farm.clone(),
            store: shared,
            api: api.clone(),
        })
        .merge(api.routes().add_service(farm_service).into_axum_router());
        let endpoint = Endpoint::open(&config.endpoint).await?;
        let tasks = TaskTracker::new();
        // What is kept is still looked after while the last builds end.
        let keep_until = CancellationToken::new();
        tasks.spawn(keeping.run(keep_until.clone()));
        Ok(Self {
            endpoint,
            api,
            farm,
            store,
            flats,
            router,
            grace: config.grace,
            cancel,
            farm_ended,
            keep_until,
            tasks,
            _data: guard,
        })
    }

    /// Where it listens, with real port numbers.
    pub fn addresses(&self) -> &[Address] {
        &self.endpoint.addresses
    }

    /// The flat files, for a worker in the same process.
    pub fn flats(&self) -> FlatFiles {
        self.flats.clone()
    }

    /// A connection for a worker in the same process: the same protocol over memory.
    pub fn in_process(&self) -> Channel {
        let (connections, incoming) =
            mpsc::channel::<Result<tokio::io::DuplexStream, std::io::Error>>(16);
        let service = FarmServer::new(FarmService::new(self.farm.clone()))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let stop = self.farm_ended.clone();
        self.tasks.spawn(async move {
            let served = tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming_shutdown(ReceiverStream::new(incoming), stop.cancelled_owned())
                .await;
            if let Err(error) = served {
                tracing::error!(%error, "the connection to the worker in this process ended");
            }
        });
        let connect = tower::service_fn(move |_| {
            let connections = connections.clone();
            async move {
                let (ours, theirs) = tokio::io::duplex(IN_PROCESS_BUFFER);
                connections
                    .send(Ok(theirs))
                    .await
                    .map_err(|_| std::io::Error::other("the coordinator has ended"))?;
                Ok::<_, std::io::Error>(TokioIo::new(ours))
            }
        });
        Dial::from_static("http://in-process").connect_with_connector_lazy(connect)
    }

    /// Serves until `stop`: then takes no new builds, lets those under way end for a while, and cancels the rest with a
    /// clear status.
    ///
    /// # Errors
    /// Closing the store failed.
    pub async fn serve(self, stop: CancellationToken) -> anyhow::Result<()> {
        let closing = CancellationToken::new();
        let serving = self
            .endpoint
            .serve(self.router, closing.clone(), Duration::from_secs(5));
        let (api, farm, cancel) = (self.api, self.farm, self.cancel);
        let grace = self.grace;
        let stopping = async {
            stop.cancelled().await;
            api.close();
            tracing::info!(builds = api.builds().len(), grace = ?grace, "stopping: no new builds are taken");
            if tokio::time::timeout(grace, api.drained()).await.is_err() {
                tracing::warn!("builds did not end in time and are cancelled");
            }
            cancel.cancel();
            api.drained().await;
            farm.close("the coordinator is stopping").await;
            closing.cancel();
        };
        tokio::join!(serving, stopping);
        self.keep_until.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        buildyard_store::Results::flush_uses(self.store.as_ref()).await?;
        self.store.close().await;
        Ok(())
    }
}

async fn build_platform(store: &SqliteStore, wanted: Option<Platform>) -> anyhow::Result<Platform> {
    use buildyard_store::Settings;
    if let Some(platform) = wanted {
        store.set_build_platform(&platform).await?;
    }
    Ok(store.build_platform(&Platform::native()).await?)
}

fn now() -> UnixMillis {
    UnixMillis::from(std::time::SystemTime::now())
}
