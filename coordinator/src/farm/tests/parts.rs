//! A farm over a store in memory, and workers that do what a test says.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use buildyard_layer::FlatFiles;
use buildyard_model::{BuildId, Chain, Digest, JobId, LayerId, Scope, StepDigest, StepKey};
use buildyard_proto::SESSION_METADATA;
use buildyard_proto::v1::farm_client::FarmClient;
use buildyard_proto::v1::farm_server::FarmServer;
use buildyard_proto::v1::{
    self as proto, claim_reply, complete_request, failure, from_worker, to_worker,
};
use buildyard_scheduler::WantedNetworks;
use buildyard_store::SqliteStore;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Status, Streaming};

use super::super::{Farm, FarmConfig, FarmService, JobEvent, JobHost, JobRequest};
use crate::layers::LayerStore;

/// Longer than a claim lives that nobody shows: some answers come only then.
const SOON: Duration = Duration::from_secs(120);

pub(super) fn quick() -> FarmConfig {
    FarmConfig {
        worker_grace: Duration::from_millis(100),
        ..FarmConfig::default()
    }
}

fn step() -> StepDigest {
    StepDigest(Digest::of("the step"))
}

fn key() -> StepKey {
    StepKey(Digest::of("the key"))
}

fn result() -> proto::StepResult {
    proto::StepResult {
        outputs: vec![proto::Chain::default()],
    }
}

/// A result from elsewhere.
pub(super) fn known() -> proto::KnownResult {
    proto::KnownResult {
        step: StepDigest(Digest::of("another step")).to_string(),
        result: Some(result()),
    }
}

pub(super) fn failed(message: &str) -> proto::Failure {
    proto::Failure {
        kind: failure::Kind::Step.into(),
        message: message.to_owned(),
        ..proto::Failure::default()
    }
}

/// A build that listens to nothing and has no secrets.
struct Deaf;

#[async_trait]
impl JobHost for Deaf {
    fn keyed(&self, _: StepDigest, _: StepKey) {}

    fn holds(&self, _chains: &[Chain]) -> bool {
        true
    }

    fn step_event(&self, _: StepDigest, _: &str, _: &proto::StepEvent) {}

    fn layer_of_image(&self, _: LayerId) -> Option<buildyard_store::Pulled> {
        None
    }

    async fn secret(&self, _: &str) -> Result<Option<Vec<u8>>, Status> {
        Ok(None)
    }

    async fn credentials(&self, _: &str) -> Result<Option<(String, String)>, Status> {
        Ok(None)
    }

    async fn token(&self, _: proto::GetTokenRequest) -> Result<String, Status> {
        Ok(String::new())
    }
}

pub(super) struct Setup {
    pub(super) farm: Arc<Farm>,
    store: Arc<SqliteStore>,
    cancel: CancellationToken,
    _dir: tempfile::TempDir,
}

impl Drop for Setup {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Setup {
    pub(super) async fn new(config: FarmConfig) -> Self {
        let store = Arc::new(SqliteStore::in_memory().await.unwrap());
        Self::on(store, config).await
    }

    /// The next coordinator on the same store. This one is gone as after a kill, unless it was closed before.
    pub(super) async fn next(self, config: FarmConfig) -> Self {
        Self::on(self.store.clone(), config).await
    }

    async fn on(store: Arc<SqliteStore>, config: FarmConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Arc::new(buildyard_cas::MemoryBlobs::default());
        let flats = FlatFiles::new(dir.path().join("flats")).unwrap();
        let layers = Arc::new(LayerStore::new(store.clone(), blobs, flats));
        let cancel = CancellationToken::new();
        let farm = Farm::start(config, store.clone(), layers, cancel.clone())
            .await
            .unwrap();
        Self {
            farm,
            store,
            cancel,
            _dir: dir,
        }
    }

    /// How many transactions were begun so far.
    pub(super) fn transactions(&self) -> u64 {
        self.store.transactions()
    }

    /// A new process of this name, registered.
    pub(super) async fn worker(&self, name: &str, platforms: &[&str]) -> Fake {
        let mut worker = self.worker_later(name, platforms).await.unwrap().unwrap();
        worker.registered().await;
        worker
    }

    pub(super) fn worker_later(
        &self,
        name: &str,
        platforms: &[&str],
    ) -> JoinHandle<Result<Fake, Status>> {
        tokio::spawn(Fake::attach(self.farm.clone(), register(name, platforms)))
    }

    /// A new process that says this of itself.
    pub(super) async fn join(&self, register: proto::Register) -> Fake {
        let mut worker = Fake::attach(self.farm.clone(), register).await.unwrap();
        worker.registered().await;
        worker
    }

    pub(super) fn submit(&self, id: &str, platform: &str) -> Submitted {
        self.submit_request(request(id, platform))
    }

    pub(super) fn submit_request(&self, request: JobRequest) -> Submitted {
        Submitted(self.farm.submit(request))
    }

    /// Waits until a job waits for another's run.
    pub(super) async fn wait_watched(&self) {
        self.wait(|farm| farm.claims.watched() > 0).await;
    }

    pub(super) async fn wait_connected(&self, count: usize) {
        self.wait(|farm| farm.connected().len() == count).await;
    }

    async fn wait(&self, state: impl Fn(&Farm) -> bool) {
        let reached = async {
            while !state(&self.farm) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(SOON, reached).await.unwrap();
    }
}

/// What a new process of this name, with one slot, says of itself.
pub(super) fn register(name: &str, platforms: &[&str]) -> proto::Register {
    let offered = |platform: &&str| proto::OfferedPlatform {
        platform: (*platform).to_owned(),
        ..proto::OfferedPlatform::default()
    };
    proto::Register {
        name: name.to_owned(),
        session: hex::encode(rand::random::<[u8; 16]>()),
        platforms: platforms.iter().map(offered).collect(),
        slots: 1,
        fresh: true,
        ..proto::Register::default()
    }
}

/// A job of one step.
pub(super) fn request(id: &str, platform: &str) -> JobRequest {
    let steps = vec![proto::JobStep {
        digest: step().to_string(),
        ..proto::JobStep::default()
    }];
    let order = proto::StartJob {
        job: id.to_owned(),
        steps,
        ..proto::StartJob::default()
    };
    JobRequest {
        id: JobId::new(id),
        build: BuildId::new(format!("build of {id}")),
        scope: Scope::new("default"),
        platform: Some(platform.parse().unwrap()),
        order,
        inputs: Vec::new(),
        networks: WantedNetworks::default(),
        avoid: Vec::new(),
        host: Arc::new(Deaf),
    }
}

/// What the planner hears of a job.
pub(super) struct Submitted(mpsc::UnboundedReceiver<JobEvent>);

impl Submitted {
    pub(super) async fn next(&mut self) -> JobEvent {
        let event = tokio::time::timeout(SOON, self.0.recv()).await;
        event.expect("an event in time").expect("the job is known")
    }

    pub(super) async fn next_but_assigned(&mut self) -> JobEvent {
        loop {
            let event = self.next().await;
            if !matches!(event, JobEvent::Assigned { .. }) {
                return event;
            }
        }
    }
}

/// The answer to a claim.
#[derive(Debug)]
pub(super) struct Answered(Result<proto::ClaimReply, Status>);

impl Answered {
    pub(super) fn answer(self) -> claim_reply::Answer {
        self.0.unwrap().answer.unwrap()
    }

    pub(super) fn run(self) -> proto::HeldClaim {
        match self.answer() {
            claim_reply::Answer::Run(held) => held,
            other => panic!("not to be run: {other:?}"),
        }
    }

    /// The claim, if it is one.
    pub(super) fn claim(self) -> Option<proto::HeldClaim> {
        match self.0.ok()?.answer? {
            claim_reply::Answer::Run(held) => Some(held),
            _ => None,
        }
    }

    pub(super) fn refused(self) -> Status {
        self.0.unwrap_err()
    }
}

/// A worker.
pub(super) struct Fake {
    farm: Arc<Farm>,
    register: proto::Register,
    client: FarmClient<Channel>,
    events: mpsc::Sender<proto::FromWorker>,
    orders: Streaming<proto::ToWorker>,
    server: CancellationToken,
}

/// A worker without a connection.
#[derive(Clone)]
pub(super) struct Gone(Arc<Farm>, proto::Register);

impl Gone {
    /// The same process, from now on for another coordinator.
    pub(super) fn of(self, setup: &Setup) -> Self {
        Self(setup.farm.clone(), self.1)
    }

    pub(super) async fn reconnect(self, claims: Vec<proto::HeldClaim>, jobs: Vec<String>) -> Fake {
        self.try_reconnect(claims, jobs).await.unwrap()
    }

    /// # Errors
    /// The coordinator takes nobody in.
    pub(super) async fn try_reconnect(
        self,
        claims: Vec<proto::HeldClaim>,
        jobs: Vec<String>,
    ) -> Result<Fake, Status> {
        let register = proto::Register {
            claims,
            jobs,
            fresh: false,
            ..self.1
        };
        Fake::attach(self.0, register).await
    }
}

impl Fake {
    async fn attach(farm: Arc<Farm>, register: proto::Register) -> Result<Self, Status> {
        let server = CancellationToken::new();
        let mut client = FarmClient::new(channel(&farm, server.clone()));
        let (events, receiver) = mpsc::channel(16);
        let first = from_worker::Event::Register(register.clone());
        let first = proto::FromWorker { event: Some(first) };
        events.send(first).await.unwrap();
        let orders = client.attach(ReceiverStream::new(receiver)).await?;
        Ok(Self {
            farm,
            register,
            client,
            events,
            orders: orders.into_inner(),
            server,
        })
    }

    pub(super) fn disconnect(self) -> Gone {
        self.server.cancel();
        Gone(self.farm.clone(), self.register.clone())
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let session = self.register.session.parse().unwrap();
        request.metadata_mut().insert(SESSION_METADATA, session);
        request
    }

    pub(super) async fn order(&mut self) -> to_worker::Order {
        let order = tokio::time::timeout(SOON, self.orders.message()).await;
        let order = order.expect("an order in time").unwrap();
        order.expect("the line is open").order.unwrap()
    }

    /// The next order; `None` when the line has ended.
    pub(super) async fn next_order(&mut self) -> Option<to_worker::Order> {
        let order = self.orders.message().await.ok().flatten();
        order.and_then(|order| order.order)
    }

    /// The end of the line, in time.
    pub(super) async fn line_ends(&mut self) {
        let ended = tokio::time::timeout(SOON, self.orders.message()).await;
        assert!(
            matches!(ended.expect("an end in time"), Ok(None)),
            "another order"
        );
    }

    /// Whether such an order is waiting to be read.
    pub(super) fn has_order(&mut self, is_it: impl Fn(&to_worker::Order) -> bool) -> bool {
        use futures::FutureExt;
        while let Some(Ok(Some(order))) = self.orders.message().now_or_never() {
            if order.order.as_ref().is_some_and(&is_it) {
                return true;
            }
        }
        false
    }

    pub(super) async fn registered(&mut self) -> proto::Registered {
        match self.order().await {
            to_worker::Order::Registered(registered) => registered,
            other => panic!("not registered: {other:?}"),
        }
    }

    pub(super) async fn started(&mut self, job: &str) -> proto::StartJob {
        match self.order().await {
            to_worker::Order::StartJob(start) if start.job == job => start,
            other => panic!("not job {job}: {other:?}"),
        }
    }

    pub(super) async fn claim(&self, job: &str) -> Answered {
        self.claim_later(job).await.unwrap()
    }

    pub(super) fn claim_later(&self, job: &str) -> JoinHandle<Answered> {
        let request = self.request(proto::ClaimRequest {
            job: job.to_owned(),
            step: step().to_string(),
            key: key().to_string(),
        });
        let mut client = self.client.clone();
        tokio::spawn(async move {
            let reply = tokio::time::timeout(SOON, client.claim(request)).await;
            Answered(
                reply
                    .expect("an answer in time")
                    .map(tonic::Response::into_inner),
            )
        })
    }

    pub(super) async fn complete(&self, claim: &proto::HeldClaim) -> proto::CompleteReply {
        let completed = proto::CompletedStep {
            result: Some(result()),
            ..proto::CompletedStep::default()
        };
        self.end(claim, complete_request::Outcome::Completed(completed))
            .await
    }

    pub(super) async fn fail(&self, claim: &proto::HeldClaim, failure: proto::Failure) {
        self.end(claim, complete_request::Outcome::Failure(failure))
            .await;
    }

    async fn end(
        &self,
        claim: &proto::HeldClaim,
        outcome: complete_request::Outcome,
    ) -> proto::CompleteReply {
        let request = self.request(proto::CompleteRequest {
            claim: Some(claim.clone()),
            outcome: Some(outcome),
        });
        let reply = self.client.clone().complete(request).await;
        reply.unwrap().into_inner()
    }

    pub(super) async fn send(&self, event: from_worker::Event) {
        let message = proto::FromWorker { event: Some(event) };
        self.events.send(message).await.unwrap();
    }

    /// Sends it, unless the line has ended.
    pub(super) async fn try_send(&self, event: from_worker::Event) {
        let message = proto::FromWorker { event: Some(event) };
        let _ = self.events.send(message).await;
    }

    pub(super) async fn heartbeat(&self, claims: Vec<proto::HeldClaim>) {
        let holdings = None;
        self.send(from_worker::Event::Heartbeat(proto::Heartbeat {
            claims,
            holdings,
        }))
        .await;
    }

    pub(super) async fn job_ended(&self, job: &str) {
        let ended = proto::JobEnded {
            job: job.to_owned(),
            failure: None,
        };
        self.send(from_worker::Event::JobEnded(ended)).await;
    }
}

/// Sends one's heartbeats until `other` is done.
pub(super) async fn beating(
    one: &Fake,
    other: JoinHandle<Result<Fake, Status>>,
) -> Result<Fake, Status> {
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    let mut other = other;
    loop {
        tokio::select! {
            ended = &mut other => return ended.unwrap(),
            _ = tick.tick() => one.heartbeat(vec![]).await,
        }
    }
}

/// A connection to the farm that breaks with `server`.
fn channel(farm: &Arc<Farm>, server: CancellationToken) -> Channel {
    let service = FarmServer::new(FarmService::new(farm.clone()));
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    tokio::spawn(async move {
        let connections = futures::StreamExt::chain(
            tokio_stream::once(Ok::<_, std::io::Error>(theirs)),
            futures::stream::pending(),
        );
        let serving = Server::builder()
            .add_service(service)
            .serve_with_incoming(connections);
        tokio::select! {
            _ = serving => {}
            () = server.cancelled() => {}
        }
    });
    let mut ours = Some(ours);
    Endpoint::from_static("http://farm").connect_with_connector_lazy(tower::service_fn(move |_| {
        let ours = ours.take();
        async move {
            let ours = ours.ok_or_else(|| std::io::Error::other("the connection broke"))?;
            Ok::<_, std::io::Error>(TokioIo::new(ours))
        }
    }))
}
