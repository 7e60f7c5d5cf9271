//! A build against a hand-written farm that speaks BuildKit's `Control` over TCP: it opens its side of the session, asks
//! for the Dockerfile and a secret, sends an export back, and reports status on the way.

// Helpers of a test may fail it as tests do.
#![allow(clippy::unwrap_used)]

mod farm;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1::{Exporter, StatusResponse};
use buildyard_cli::args::FarmArgs;
use buildyard_cli::buildkit::export::{Destination, FileSendService};
use buildyard_cli::buildkit::filesync::FileSyncService;
use buildyard_cli::buildkit::{
    BuildError, Credentials, Job, Observer, SecretStore, Services, Solved, solve,
};
use buildyard_cli::connect::Farm;
use buildyard_cli::request::{SecretSource, SecretSpec};
use farm::{Behaviour, FakeFarm};
use tokio_util::sync::CancellationToken;

#[derive(Default)]
struct Seen {
    names: Vec<String>,
    interrupt_at: Option<(&'static str, CancellationToken)>,
}

impl Observer for Seen {
    fn status(&mut self, status: &StatusResponse) {
        for vertex in &status.vertexes {
            self.names.push(vertex.name.clone());
            if let Some((name, token)) = &self.interrupt_at
                && *name == vertex.name
            {
                token.cancel();
            }
        }
    }

    fn tick(&mut self) {}
}

fn services(dir: &Path) -> Services {
    let secret = SecretSpec {
        source: SecretSource::File(dir.join("secret")),
    };
    Services {
        files: FileSyncService::new(BTreeMap::from([("dockerfile".to_owned(), dir.to_owned())])),
        exports: FileSendService::new(BTreeMap::from([(
            0,
            Destination::File(dir.join("out.tar")),
        )])),
        credentials: Credentials,
        secrets: SecretStore::new(BTreeMap::from([("s".to_owned(), secret)])),
    }
}

fn job() -> Job {
    let exporter = Exporter {
        r#type: "tar".into(),
        attrs: HashMap::new(),
    };
    Job {
        attrs: HashMap::from([("filename".to_owned(), "Dockerfile".to_owned())]),
        exporters: vec![exporter],
        ..Job::default()
    }
}

async fn run(
    behaviour: Behaviour,
    dir: &Path,
    seen: &mut Seen,
) -> (Result<Solved, BuildError>, FakeFarm) {
    std::fs::write(dir.join("Dockerfile"), "FROM scratch\n").unwrap();
    std::fs::write(dir.join("secret"), "hush").unwrap();
    let fake = FakeFarm::start(behaviour).await;
    let args = FarmArgs {
        builder: Some(fake.url()),
        ..FarmArgs::default()
    };
    let channel = Farm::new(&args).unwrap().channel().await.unwrap();
    let token = seen
        .interrupt_at
        .as_ref()
        .map_or_else(CancellationToken::new, |(_, token)| token.clone());
    let build = solve(channel, job(), services(dir), seen, &token);
    let outcome = tokio::time::timeout(Duration::from_secs(60), build)
        .await
        .expect("the build ends");
    (outcome, fake)
}

#[tokio::test]
async fn a_build_serves_its_session_and_takes_the_export() {
    let dir = tempfile::tempdir().unwrap();
    let mut seen = Seen::default();
    let (outcome, fake) = run(Behaviour::Succeed, dir.path(), &mut seen).await;
    let solved = outcome.unwrap();
    // The fake farm answers with what it was given.
    assert_eq!(solved.response["dockerfile"], "FROM scratch\n");
    assert_eq!(solved.response["secret"], "hush");
    assert_eq!(solved.response["frontend"], "dockerfile.v0");
    assert_eq!(
        std::fs::read(dir.path().join("out.tar")).unwrap(),
        b"exported"
    );
    assert_eq!(
        seen.names,
        ["first", "last"],
        "also what comes after the solve's answer"
    );
    assert!(
        fake.methods()
            .contains(&"/moby.filesync.v1.FileSync/DiffCopy".to_owned())
    );
}

#[tokio::test]
async fn a_failed_build_has_its_source() {
    let dir = tempfile::tempdir().unwrap();
    let (outcome, _fake) = run(Behaviour::Fail, dir.path(), &mut Seen::default()).await;
    let Err(BuildError::Failed { status, details }) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(status.message(), "exit code: 1");
    assert_eq!(
        (
            details.sources[0].filename.as_str(),
            details.sources[0].ranges[0].first
        ),
        ("Dockerfile", 1)
    );
}

#[tokio::test]
async fn an_interrupt_ends_the_build_on_the_farm_and_waits_for_its_status() {
    let dir = tempfile::tempdir().unwrap();
    let mut seen = Seen {
        interrupt_at: Some(("first", CancellationToken::new())),
        ..Seen::default()
    };
    let (outcome, fake) = run(Behaviour::Hang, dir.path(), &mut seen).await;
    assert!(
        matches!(outcome, Err(BuildError::Interrupted)),
        "{outcome:?}"
    );
    assert!(fake.was_canceled());
    assert_eq!(seen.names, ["first", "canceled"]);
}

#[tokio::test]
async fn a_farm_that_goes_away_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (outcome, _fake) = run(Behaviour::Vanish, dir.path(), &mut Seen::default()).await;
    assert!(
        matches!(
            outcome,
            Err(BuildError::Failed { .. } | BuildError::Lost(_))
        ),
        "{outcome:?}"
    );
}
