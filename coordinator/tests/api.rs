//! The API from a client's point of view, for what buildx doesn't do: solves without the gateway, the gateway's rules,
//! and requests that make no sense.

mod support;

use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1::frontend::{self, ReturnRequest, result};
use bollard_buildkit_proto::moby::buildkit::v1::*;
use bollard_buildkit_proto::{google, pb};
use futures::StreamExt;
use support::client::{Client, for_build};
use support::endpoint::Endpoint;
use tonic::Code;

const FILES: &[(&str, &str)] = &[("Dockerfile", "PRINT hello\n"), ("file", "content")];
const LONG: Duration = Duration::from_secs(90);

/// Everything that the build's status says.
async fn status(client: &Client, build: &str) -> Vec<StatusResponse> {
    let request = StatusRequest {
        r#ref: build.to_owned(),
    };
    let stream = client
        .control()
        .status(request)
        .await
        .expect("the build is known")
        .into_inner();
    let all = stream
        .map(|message| message.expect("the status does not fail"))
        .collect();
    tokio::time::timeout(LONG, all)
        .await
        .expect("the status ends with the build")
}

fn frontend(request: SolveRequest) -> SolveRequest {
    let frontend_attrs = [("target".to_owned(), "t".to_owned())].into();
    SolveRequest {
        frontend: "dockerfile.v0".into(),
        frontend_attrs,
        ..request
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frontend_is_solved_without_the_gateway_and_its_status_is_replayed() {
    let endpoint = Endpoint::tcp().await;
    let client = Client::connect(&endpoint.address).await;
    let session = client.session(FILES).await;
    let mut control = client.control();
    let (response, live) = tokio::join!(
        control.solve(frontend(session.request("b1"))),
        status(&client, "b1")
    );
    let response = response.unwrap().into_inner().exporter_response;
    assert!(response["containerimage.digest"].starts_with("sha256:"));
    let replayed = status(&client, "b1").await;
    for messages in [live, replayed] {
        let logs: Vec<_> = messages.iter().flat_map(|message| &message.logs).collect();
        assert_eq!(
            logs.iter()
                .map(|log| log.msg.as_slice())
                .collect::<Vec<_>>(),
            [b"hello\n"]
        );
    }
    let seen = endpoint.engine.seen.lock().unwrap().clone();
    assert_eq!(
        (seen.frontend.as_str(), seen.attrs["target"].as_str()),
        ("dockerfile.v0", "t")
    );
    assert_eq!(seen.context, ["Dockerfile", "file"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_solves_reads_and_returns() {
    let endpoint = Endpoint::tcp().await;
    let client = Client::connect(&endpoint.address).await;
    let session = client.session(FILES).await;
    let mut control = client.control();
    let mut request = session.request("b2");
    request.frontend_inputs.insert(
        "in".into(),
        pb::Definition {
            def: vec![vec![1]],
            ..Default::default()
        },
    );
    let driven = async {
        let mut bridge = client.bridge();
        let inputs = bridge
            .inputs(for_build("b2", frontend::InputsRequest {}))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(inputs.definitions["in"].def, [[1]]);
        let solve = frontend::SolveRequest {
            frontend: "dockerfile.v0".into(),
            allow_result_return: true,
            allow_result_array_ref: true,
            ..Default::default()
        };
        let solved = bridge
            .solve(for_build("b2", solve))
            .await
            .unwrap()
            .into_inner();
        let result = solved.result.unwrap();
        let Some(result::Result::Ref(reference)) = &result.result else {
            panic!("{result:?}")
        };
        let read = frontend::ReadFileRequest {
            r#ref: reference.id.clone(),
            file_path: "file".into(),
            ..Default::default()
        };
        assert_eq!(
            bridge
                .read_file(for_build("b2", read))
                .await
                .unwrap()
                .into_inner()
                .data,
            b"content"
        );
        let read = frontend::ReadFileRequest {
            r#ref: "nonsense".into(),
            file_path: "file".into(),
            ..Default::default()
        };
        assert_eq!(
            bridge
                .read_file(for_build("b2", read))
                .await
                .unwrap_err()
                .code(),
            Code::NotFound
        );
        let container = bridge
            .new_container(for_build("b2", frontend::NewContainerRequest::default()))
            .await;
        assert_eq!(container.unwrap_err().code(), Code::Unimplemented);
        let done = ReturnRequest {
            result: Some(result),
            error: None,
        };
        bridge
            .r#return(for_build("b2", done.clone()))
            .await
            .unwrap();
        // The build may have ended by now; in no case does a second result count.
        bridge.r#return(for_build("b2", done)).await.unwrap_err();
    };
    let (response, ()) = tokio::join!(control.solve(request), driven);
    assert!(
        response
            .unwrap()
            .into_inner()
            .exporter_response
            .contains_key("containerimage.digest")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_that_the_client_returns_is_the_builds_error_with_its_details() {
    let endpoint = Endpoint::tcp().await;
    let client = Client::connect(&endpoint.address).await;
    let session = client.session(FILES).await;
    let mut control = client.control();
    let detail = google::protobuf::Any {
        type_url: "test/detail+json".into(),
        value: b"{}".to_vec(),
    };
    let error = google::rpc::Status {
        code: 2,
        message: "my own".into(),
        details: vec![detail.clone()],
    };
    let driven = async {
        let returned = ReturnRequest {
            result: None,
            error: Some(error),
        };
        client
            .bridge()
            .r#return(for_build("b3", returned))
            .await
            .unwrap();
    };
    let (response, ()) = tokio::join!(control.solve(session.request("b3")), driven);
    let status = response.unwrap_err();
    let body: google::rpc::Status = prost::Message::decode(status.details()).unwrap();
    assert_eq!((status.message(), body.details), ("my own", vec![detail]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_up_solve_ends_the_build_and_so_does_the_coordinator() {
    let endpoint = Endpoint::tcp().await;
    let client = Client::connect(&endpoint.address).await;
    let session = client.session(&[("Dockerfile", "WAIT\n")]).await;
    for hang_up in [true, false] {
        let mut control = client.control();
        let request = frontend(session.request(if hang_up { "b4" } else { "b5" }));
        let solve = tokio::spawn(async move { control.solve(request).await });
        tokio::time::timeout(LONG, endpoint.engine.running.notified())
            .await
            .expect("the step starts");
        if hang_up {
            solve.abort();
        } else {
            endpoint.cancel_builds.cancel();
            let status = tokio::time::timeout(LONG, solve)
                .await
                .unwrap()
                .unwrap()
                .unwrap_err();
            assert_eq!(status.code(), Code::Unavailable);
            let said = status.message();
            assert!(said.contains("the coordinator is stopping"), "{said}");
        }
        let messages = status(&client, if hang_up { "b4" } else { "b5" }).await;
        let last = messages
            .iter()
            .flat_map(|message| &message.vertexes)
            .next_back()
            .unwrap();
        assert_eq!(
            last.error, "context canceled",
            "open steps show as cancelled"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_make_no_sense_are_answered_clearly() {
    let endpoint = Endpoint::tcp().await;
    let client = Client::connect(&endpoint.address).await;
    let session = client.session(FILES).await;
    let solve = |request| {
        let mut control = client.control();
        async move { control.solve(request).await.map(|_| ()).unwrap_err() }
    };
    let check = |status: tonic::Status, code, words: &str| {
        assert_eq!(status.code(), code, "{status}");
        assert!(
            status.message().contains(words),
            "{words:?} in {:?}",
            status.message()
        );
    };
    check(
        solve(session.request("")).await,
        Code::InvalidArgument,
        "needs an id",
    );
    let both = SolveRequest {
        definition: Some(pb::Definition {
            def: vec![vec![1]],
            ..Default::default()
        }),
        ..frontend(session.request("b6"))
    };
    check(
        solve(both).await,
        Code::InvalidArgument,
        "both Definition and Frontend",
    );
    let large = [("build-arg:A".to_owned(), "x".repeat(17 << 20))].into();
    let large = SolveRequest {
        frontend_attrs: large,
        ..frontend(session.request("b6"))
    };
    check(
        solve(large).await,
        Code::OutOfRange,
        "the limit is: 16777216",
    );
    let mut bridge = client.bridge();
    check(
        bridge
            .evaluate(frontend::EvaluateRequest::default())
            .await
            .unwrap_err(),
        Code::InvalidArgument,
        "build's id",
    );
    let history = client
        .control()
        .listen_build_history(BuildHistoryRequest::default())
        .await;
    check(
        history.map(|_| ()).unwrap_err(),
        Code::Unimplemented,
        "buildyard builds",
    );
    let session_without_id = client.control().session(futures::stream::pending()).await;
    check(
        session_without_id.map(|_| ()).unwrap_err(),
        Code::InvalidArgument,
        "x-docker-expose-session-uuid",
    );
    endpoint.api.close();
    check(
        solve(session.request("b6")).await,
        Code::Unavailable,
        "shutting down",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_id_is_one_build() {
    let endpoint = Endpoint::tcp().await;
    let client = Client::connect(&endpoint.address).await;
    let session = client.session(FILES).await;
    client
        .control()
        .solve(frontend(session.request("b7")))
        .await
        .unwrap();
    let again = client
        .control()
        .solve(frontend(session.request("b7")))
        .await
        .unwrap_err();
    assert_eq!(again.code(), Code::AlreadyExists);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_builder_says_what_it_is() {
    let endpoint = Endpoint::tcp().await;
    let client = Client::connect(&endpoint.address).await;
    let info = client
        .control()
        .info(InfoRequest {})
        .await
        .unwrap()
        .into_inner()
        .buildkit_version
        .unwrap();
    assert_eq!(info.package, "buildyard");
    assert!(info.version.starts_with("v0.10."), "{}", info.version);
    let workers = client
        .control()
        .list_workers(ListWorkersRequest::default())
        .await
        .unwrap()
        .into_inner()
        .record;
    assert_eq!(workers.len(), 1);
    assert_eq!(workers[0].platforms.len(), 2);
    let pong = client
        .bridge()
        .ping(frontend::PingRequest {})
        .await
        .unwrap()
        .into_inner();
    let has = |id: &str| {
        pong.llb_caps
            .iter()
            .chain(&pong.frontend_api_caps)
            .any(|cap| cap.id == id && cap.enabled)
    };
    assert!(has("source.local") && has("return") && !has("exporter.image.attestations"));
}
