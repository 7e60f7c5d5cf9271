//! Promise: whatever a client sends, by whatever means, is built, or it is told what was wrong, and everybody else goes on.
//!
//! No client is real here: these speak gRPC by hand, against a running farm.

mod client;
mod crowd;
mod files;
mod graphs;

use std::time::Duration;

use bollard_buildkit_proto::fsutil::types::packet::PacketType::{
    PacketData, PacketErr, PacketFin, PacketReq,
};
use bollard_buildkit_proto::fsutil::types::{Packet, Stat};
use bollard_buildkit_proto::moby::buildkit::v1::frontend::{PingRequest, ReturnRequest};
use bollard_buildkit_proto::moby::buildkit::v1::{
    BytesMessage, Exporter, SolveRequest, StatusRequest,
};
use bollard_buildkit_proto::pb;
use buildyard_tests::{Farm, Image, Serve, Server, native_architecture, wait_for};
use prost::Message;
use tonic::{Code, Request, Status};

use client::Client;
use files::{Sends, file, link, packet, stat_packet};
use graphs::{encoded, ending_with, exec, folders, op, source};

const SOON: Duration = Duration::from_secs(60);

/// The refusal, within the deadline.
async fn refusal<T: std::fmt::Debug>(call: impl Future<Output = Result<T, Status>>) -> Status {
    let answer = tokio::time::timeout(SOON, call).await;
    answer.expect("an answer in time").expect_err("a refusal")
}

#[track_caller]
fn says(status: &Status, text: &str) {
    let message = status.message();
    assert!(message.contains(text), "no {text:?} in {message:?}");
    assert_ne!(status.code(), Code::Internal, "{message}");
}

/// A good build of the same farm.
async fn still_builds(server: &Server, client: &Client) {
    let dockerfile = Sends::dockerfile("FROM scratch\nCOPY file /\n");
    let context = Sends::Files(vec![("file", b"content".to_vec())]);
    let session = client.session(dockerfile, context).await;
    client.build(&session).await.expect("a good build");
    assert_eq!(server.status("/livez"), Some(200));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graph_of_every_kind_of_operation_is_built_and_pushed() {
    let farm = Farm::new();
    let client = Client::connect(&farm.server.url());
    let session = client.session(Sends::nothing(), Sends::nothing()).await;
    let name = farm.name("graph:1");
    let push = Exporter {
        r#type: "image".to_owned(),
        attrs: [("name", name.as_str()), ("push", "true")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
    };
    let request = SolveRequest {
        r#ref: "graph".to_owned(),
        session: session.id.clone(),
        definition: Some(graphs::good(&farm.base, "text")),
        exporters: vec![push],
        ..SolveRequest::default()
    };
    let response = client.solve(request).await.expect("it is built");
    assert_eq!(response.exporter_response["image.name"], name);
    let image = Image::pull(&name, native_architecture());
    assert_eq!(
        (image.text("kept"), image.text("made")),
        ("text".to_owned(), "TEXT".to_owned())
    );
    assert!(image.has("bin/sh") && !image.has("bin/cat"));
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_graphs_are_refused_by_reason() {
    let server = Serve::up().start();
    let client = Client::connect(&server.url());
    let session = client.session(Sends::nothing(), Sends::nothing()).await;
    let check = async |graph: pb::Definition, text: &str| {
        let status = refusal(client.solve_graph(&session, graph)).await;
        says(&status, text);
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    };
    let image = source("docker-image://127.0.0.1:1/none");
    let bytes = image.encode_to_vec();
    check(encoded(vec![vec![0xff; 9]]), "cannot be decoded").await;
    check(
        encoded(vec![bytes.clone()]),
        "has 0 inputs; it must have one",
    )
    .await;
    let two = pb::Op {
        inputs: vec![graphs::input(&bytes, 0), graphs::input(&bytes, 0)],
        ..pb::Op::default()
    };
    check(
        encoded(vec![bytes.clone(), two.encode_to_vec()]),
        "has 2 inputs",
    )
    .await;
    let dangling = pb::Op {
        inputs: vec![graphs::input(b"something else", 0)],
        ..pb::Op::default()
    };
    check(
        encoded(vec![dangling.encode_to_vec()]),
        "which is not in the definition",
    )
    .await;
    for index in [1, -1, i64::MAX] {
        check(ending_with(&image, index), "which has 1").await;
    }
    check(
        ending_with(&source("git://example.com/x"), 0),
        "is not supported yet",
    )
    .await;
    check(ending_with(&pb::Op::default(), 0), "the operation is empty").await;
    let nested = op(pb::op::Op::Build(pb::BuildOp::default()));
    check(ending_with(&nested, 0), "nested frontends").await;
    check(ending_with(&exec(&[]), 0), "no mount for /").await;
    check(
        ending_with(&exec(&[("/", 7, 0)]), 0),
        "input 7 does not exist",
    )
    .await;
    check(
        ending_with(&exec(&[("/", -9, 0)]), 0),
        "input -9 does not exist",
    )
    .await;
    check(
        ending_with(&exec(&[("/", -1, i64::MAX)]), 0),
        "output 9223372036854775807",
    )
    .await;
    let twice = exec(&[("/", -1, 0), ("/m", -1, 0)]);
    check(ending_with(&twice, 0), "two mounts are output 0").await;
    check(
        ending_with(&folders(&[(3, 0)]), 0),
        "input 3 does not exist",
    )
    .await;
    check(
        ending_with(&folders(&[(-1, 5)]), 5),
        "output 0 does not exist",
    )
    .await;
    check(
        ending_with(&folders(&[(-1, 0), (0, 0)]), 0),
        "two file actions are output 0",
    )
    .await;
    let nowhere = pb::Op {
        platform: Some(pb::Platform::default()),
        ..exec(&[("/", -1, 0)])
    };
    check(ending_with(&nowhere, 0), "incomplete platform").await;
    check(
        encoded(vec![Vec::new(); 50_001]),
        "more than 50000 operations",
    )
    .await;
    still_builds(&server, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malicious_senders_of_files_are_refused_by_reason() {
    let server = Serve::up().start();
    let client = Client::connect(&server.url());
    let check = async |context: Sends, text: &str| {
        let dockerfile = Sends::dockerfile("FROM scratch\nCOPY . /\n");
        let session = client.session(dockerfile, context).await;
        says(&refusal(client.build(&session)).await, text);
    };
    let sends = |packets: &[Packet]| Sends::Packets(packets.to_vec());
    let end = || stat_packet(None);
    let data = |id, bytes: &[u8]| packet(PacketData, id, bytes);
    check(
        sends(&[file("../evil", 1)]),
        "\"../evil\" is not a plain relative path",
    )
    .await;
    check(
        sends(&[file("a/../../evil", 1)]),
        "not a plain relative path",
    )
    .await;
    check(
        sends(&[file("/etc/passwd", 1)]),
        "not a plain relative path",
    )
    .await;
    check(
        sends(&[file("b", 0), file("a", 0)]),
        "\"a\" comes out of order",
    )
    .await;
    check(sends(&[file("a", 0), file("a", 0)]), "out of order").await;
    check(
        sends(&[link("a", "/etc"), file("a/passwd", 1)]),
        "\"a/passwd\" lies beneath \"a\", which is no directory",
    )
    .await;
    check(sends(&[file("a", -1)]), "has the size -1").await;
    check(sends(&[file("a", i64::MAX)]), "to transfer").await;
    check(
        sends(&[file("a", 1), end(), data(0, b"xyz")]),
        "\"a\" was 1 bytes long and changed",
    )
    .await;
    check(
        sends(&[file("a", 3), end(), data(0, b"x"), data(0, b"")]),
        "was 3 bytes long",
    )
    .await;
    check(
        sends(&[file("a", 1), end(), data(7, b"x")]),
        "content 7 was not asked for",
    )
    .await;
    check(
        sends(&[file("a", 0), data(0, b"x")]),
        "content 0 was not asked for",
    )
    .await;
    let whole = [file("a", 1), end(), data(0, b"x"), data(0, b"")];
    check(
        sends(&[&whole[..], &[data(0, b"x")]].concat()),
        "a packet came after the end",
    )
    .await;
    check(
        sends(&[&whole[..2], &[file("b", 1)]].concat()),
        "a path came after the last",
    )
    .await;
    let attributes = Stat {
        path: "a".to_owned(),
        mode: 0o644,
        xattrs: [("user.x".to_owned(), vec![0; 200_000])].into(),
        ..Stat::default()
    };
    check(
        sends(&[stat_packet(Some(attributes))]),
        "bytes of extended attributes",
    )
    .await;
    check(
        sends(&[file(&"x".repeat(5000), 0)]),
        "is longer than 4095 bytes",
    )
    .await;
    check(
        sends(&[packet(PacketErr, 0, b"no such directory")]),
        "no such directory",
    )
    .await;
    check(
        sends(&[packet(PacketFin, 0, b"")]),
        "ended before it had sent everything",
    )
    .await;
    check(
        sends(&[packet(PacketReq, 0, b"")]),
        "unexpected packet of type",
    )
    .await;
    let huge = vec![0; 17 << 20];
    check(
        sends(&[file("a", 17 << 20), end(), data(0, &huge)]),
        "message length too large",
    )
    .await;
    check(
        Sends::Endless(packet(PacketData, 0, b"x")),
        "content 0 was not asked for",
    )
    .await;
    still_builds(&server, &client).await;
    let left = || {
        let folder = std::fs::read_dir(server.data().join("flats/tmp")).expect("a folder");
        let files = folder.flatten().filter_map(|file| file.metadata().ok());
        files.map(|file| file.len()).sum::<u64>()
    };
    wait_for("the bytes of refused transfers to go", SOON, || {
        (left() == 0).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dockerfile_without_end_is_refused() {
    let server = Serve::up().start();
    let client = Client::connect(&server.url());
    let check = async |dockerfile: Sends, text: &str| {
        let session = client.session(dockerfile, Sends::nothing()).await;
        says(&refusal(client.build(&session)).await, text);
    };
    let big = [file("Dockerfile", 1 << 40), stat_packet(None)];
    check(
        Sends::Packets(big.to_vec()),
        "more than 16777216 bytes to transfer",
    )
    .await;
    check(Sends::Endless(file("f", 0)), "more than 10000 paths").await;
    let lie = [
        file("Dockerfile", 10),
        stat_packet(None),
        packet(PacketData, 0, &[b'#'; 1000]),
    ];
    check(
        Sends::Packets(lie.to_vec()),
        "\"Dockerfile\" was 10 bytes long and changed",
    )
    .await;
    let text = Sends::Files(vec![("Dockerfile", vec![b'#'; 5 << 20])]);
    check(text, "Dockerfile is larger than 4194304 bytes").await;
    let noise = Sends::Files(vec![("Dockerfile", vec![0xff; 100])]);
    check(noise, "not UTF-8 text").await;
    check(Sends::nothing(), "failed to read dockerfile").await;
    still_builds(&server, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_never_answers_holds_nobody_up() {
    let server = Serve::up().start();
    let client = Client::connect(&server.url());
    let session = client.silent_session().await;
    let stuck = Client::connect(&server.url());
    let id = session.id.clone();
    let waiting = tokio::spawn(async move {
        let request = SolveRequest {
            r#ref: "stuck".to_owned(),
            session: id,
            frontend: "dockerfile.v0".to_owned(),
            ..SolveRequest::default()
        };
        stuck.solve(request).await
    });
    wait_for("the stuck build", SOON, || {
        server.cli(&["builds"]).contains("running").then_some(())
    });
    still_builds(&server, &client).await;
    assert!(!waiting.is_finished(), "it waits for its client");
    drop(session);
    let ended = tokio::time::timeout(SOON, waiting)
        .await
        .expect("it ends with its session");
    let status = ended.expect("no panic").expect_err("nothing was built");
    assert_eq!(status.code(), Code::Cancelled, "{status:?}");
    assert_eq!(server.status("/livez"), Some(200));
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_out_of_place_are_told_what_is_missing() {
    let server = Serve::up().start();
    let client = Client::connect(&server.url());
    let solve = |build: &str, session: &str| SolveRequest {
        r#ref: build.to_owned(),
        session: session.to_owned(),
        frontend: "dockerfile.v0".to_owned(),
        ..SolveRequest::default()
    };
    let session = client.session(Sends::nothing(), Sends::nothing()).await;
    let refused = async |request| refusal(client.solve(request)).await;
    says(
        &refused(solve("", &session.id)).await,
        "a build needs an id",
    );
    says(
        &refused(solve("b", "")).await,
        "open Control.Session and name it",
    );
    says(&refused(solve("b", &session.id)).await, "Dockerfile");
    let unknown = SolveRequest {
        frontend: "teapot.v1".to_owned(),
        ..solve("c", &session.id)
    };
    says(&refused(unknown).await, "teapot.v1");
    says(
        &refusal(client.stream("")).await,
        "x-docker-expose-session-uuid",
    );
    says(
        &refusal(client.stream(&session.id)).await,
        "is already open",
    );
    let mut bridge = client.bridge.clone();
    let returned = refusal(bridge.r#return(ReturnRequest::default())).await;
    says(&returned, "buildkit-controlapi-buildid");
    bridge.ping(PingRequest {}).await.expect("an answer");
    // Each of these is waited for a while: clients make their calls in any order.
    let status = StatusRequest {
        r#ref: "none".to_owned(),
    };
    let mut of_nobody = Request::new(ReturnRequest::default());
    let none = "none".parse().expect("ASCII");
    of_nobody
        .metadata_mut()
        .insert("buildkit-controlapi-buildid", none);
    let mut control = client.control.clone();
    let (solved, status, returned) = tokio::join!(
        refused(solve("b", "nobody")),
        refusal(control.status(status)),
        refusal(bridge.r#return(of_nobody)),
    );
    says(&solved, "no active session nobody");
    says(&status, "none");
    says(&returned, "none");
    let long = SolveRequest {
        frontend_attrs: [("x".to_owned(), "y".repeat(70 << 20))].into(),
        ..solve("d", &session.id)
    };
    says(&refused(long).await, "message length too large");
    still_builds(&server, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_speaks_no_http2_ends_its_build() {
    let server = Serve::up().start();
    let client = Client::connect(&server.url());
    let (outgoing, _incoming) = client.stream("noise").await.expect("it opens");
    let noise = BytesMessage {
        data: b"HTTP/1.1 200 OK\r\n\r\n".repeat(1000),
    };
    outgoing.send(noise).await.expect("it is taken");
    let request = SolveRequest {
        r#ref: "noise".to_owned(),
        session: "noise".to_owned(),
        frontend: "dockerfile.v0".to_owned(),
        ..SolveRequest::default()
    };
    refusal(client.solve(request)).await;
    still_builds(&server, &client).await;
}
