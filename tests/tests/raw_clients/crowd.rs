//! Many clients at once: all are served in the end, each is told its place meanwhile, and the farm stays small.

use std::collections::HashSet;
use std::sync::Arc;

use bollard_buildkit_proto::moby::buildkit::v1::{SolveRequest, StatusRequest};
use buildyard_tests::{Farm, Mark, Serve, Server};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::files::Sends;

const CLIENTS: usize = 200;
/// What the server may take at most, in bytes.
const MOST_MEMORY: u64 = 300 << 20;

/// The most memory that the server's process had so far, in bytes.
fn peak(server: &Server) -> u64 {
    let pid = server.pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a running server");
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.expect("the kernel says it in kB") << 10
}

/// Builds, and says each line of the build's log together with the client's number.
async fn build(
    url: String,
    number: usize,
    dockerfile: String,
    says: mpsc::Sender<(usize, String)>,
) {
    let client = Client::connect(&url);
    let context = Sends::Files(vec![("file", number.to_string().into_bytes())]);
    let session = client
        .session(Sends::dockerfile(&dockerfile), context)
        .await;
    let build = format!("crowd-{number}");
    let request = SolveRequest {
        r#ref: build.clone(),
        session: session.id.clone(),
        frontend: "dockerfile.v0".to_owned(),
        ..SolveRequest::default()
    };
    let mut control = client.control.clone();
    let watched = async {
        let request = StatusRequest { r#ref: build };
        let stream = control.status(request).await.expect("a status stream");
        let mut stream = stream.into_inner();
        while let Some(status) = stream.message().await.expect("the status of the build") {
            for log in status.logs {
                let line = String::from_utf8_lossy(&log.msg).into_owned();
                // Nobody listens any more once all have their place.
                let _ = says.send((number, line)).await;
            }
        }
    };
    let (built, ()) = tokio::join!(client.solve(request), watched);
    built.unwrap_or_else(|status| panic!("build {number}: {status}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_clients_at_once_are_told_their_places_and_are_all_served() {
    let farm = Farm::serving(&Serve::up().args(&["--slots", "1"]));
    let held = Mark::new();
    let context = farm.context(&format!("FROM BASE\n{}\n", held.run_held("true")));
    let holding = farm.buildx.start(&context, &[]);
    held.wait_runs(&[&farm.server], 1);

    let dockerfile = Arc::new(farm.dockerfile("FROM BASE\nCOPY file /\nRUN cat /file\n"));
    let (says, mut hears) = mpsc::channel(CLIENTS);
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let (url, says) = (farm.server.url(), says.clone());
        clients.spawn(build(url, number, dockerfile.to_string(), says));
    }
    drop(says);
    let mut told = HashSet::new();
    let everybody = async {
        while told.len() < CLIENTS {
            let (number, line) = hears.recv().await.expect("none ends before it has run");
            if line.contains("waiting for a slot on worker") {
                told.insert(number);
            }
        }
    };
    tokio::time::timeout(5 * super::SOON, everybody)
        .await
        .expect("all are told their places");
    held.let_go(&farm.server);
    drop(hears);
    while let Some(ended) = clients.join_next().await {
        ended.expect("the build succeeds");
    }
    holding.finish().succeeds();
    let peak = peak(&farm.server);
    eprintln!("{CLIENTS} clients: {} MiB at most", peak >> 20);
    assert!(peak < MOST_MEMORY, "{} MiB", peak >> 20);
}
