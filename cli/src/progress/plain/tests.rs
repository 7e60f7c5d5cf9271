//! Recorded status messages and the lines they become.

use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1::{Vertex, VertexLog, VertexStatus, VertexWarning};

use super::*;

fn at(millis: i64) -> Option<Timestamp> {
    Some(Timestamp {
        seconds: 100 + millis / 1000,
        nanos: i32::try_from(millis % 1000).unwrap() * 1_000_000,
    })
}

fn vertex(digest: &str, name: &str, started: Option<i64>, completed: Option<i64>) -> Vertex {
    Vertex {
        digest: digest.into(),
        name: name.into(),
        started: started.and_then(at),
        completed: completed.and_then(at),
        ..Vertex::default()
    }
}

fn log(digest: &str, millis: i64, text: &str) -> VertexLog {
    VertexLog {
        vertex: digest.into(),
        timestamp: at(millis),
        stream: 1,
        msg: text.into(),
    }
}

fn vertexes(vertexes: Vec<Vertex>) -> StatusResponse {
    StatusResponse {
        vertexes,
        ..StatusResponse::default()
    }
}

fn logs(logs: Vec<VertexLog>) -> StatusResponse {
    StatusResponse {
        logs,
        ..StatusResponse::default()
    }
}

/// The messages, each with the second in which it comes.
fn shown(messages: &[(u64, StatusResponse)]) -> String {
    let mut plain = Plain::new(Vec::new());
    let begun = Instant::now();
    for (second, message) in messages {
        plain.take(message, begun + Duration::from_secs(*second));
    }
    plain.finish();
    String::from_utf8(plain.out).unwrap()
}

#[test]
fn a_build_reads_like_buildkits() {
    let transfer = VertexStatus {
        id: "transferring dockerfile:".into(),
        vertex: "a".into(),
        current: 31,
        timestamp: at(10),
        started: at(0),
        completed: at(10),
        ..VertexStatus::default()
    };
    let cached = Vertex {
        cached: true,
        ..vertex("b", "[linux/amd64 1/2] FROM x", Some(30), Some(30))
    };
    let failed = Vertex {
        error: "exit code: 1".into(),
        ..vertex(
            "c",
            "[linux/amd64 2/2] RUN false\nmore",
            Some(40),
            Some(1540),
        )
    };
    let canceled = Vertex {
        error: "context canceled".into(),
        ..vertex("d", "[linux/arm64 2/2] RUN sleep", Some(40), Some(1540))
    };
    let text = shown(&[
        (
            0,
            vertexes(vec![
                vertex("a", "[internal] load build definition", Some(0), None),
                vertex("z", "not begun", None, None),
            ]),
        ),
        (
            0,
            StatusResponse {
                statuses: vec![transfer],
                ..StatusResponse::default()
            },
        ),
        (
            0,
            vertexes(vec![vertex(
                "a",
                "[internal] load build definition",
                Some(0),
                Some(20),
            )]),
        ),
        (0, vertexes(vec![cached])),
        (
            1,
            vertexes(vec![vertex(
                "c",
                "[linux/amd64 2/2] RUN false\nmore",
                Some(40),
                None,
            )]),
        ),
        (
            1,
            logs(vec![log("c", 163, "one\ntw"), log("c", 200, "o\r\nlast")]),
        ),
        (2, vertexes(vec![failed, canceled])),
    ]);
    assert_eq!(
        text,
        "#1 [internal] load build definition\n#1 transferring dockerfile: 31B done\n#1 DONE 0.0s\n\n\
         #2 [linux/amd64 1/2] FROM x\n#2 CACHED\n\n\
         #3 [linux/amd64 2/2] RUN false\n#3 0.123 one\n#3 0.123 two\n#3 0.160 last\n#3 ERROR: exit code: 1\n\n\
         #4 [linux/arm64 2/2] RUN sleep\n#4 CANCELED\n"
    );
}

#[test]
fn steps_that_run_at_once_take_turns() {
    let text = shown(&[
        (
            0,
            vertexes(vec![
                vertex("a", "RUN a", Some(0), None),
                vertex("b", "RUN b", Some(0), None),
            ]),
        ),
        (0, logs(vec![log("a", 100, "a1\n"), log("b", 100, "b1\n")])),
        (0, logs(vec![log("b", 150, "b2\n"), log("a", 150, "a2\n")])),
        // a is silent: b gets its turn.
        (2, logs(vec![log("b", 2000, "b3\n")])),
        // a ends while b is shown.
        (2, vertexes(vec![vertex("a", "RUN a", Some(0), Some(2100))])),
        (2, vertexes(vec![vertex("b", "RUN b", Some(0), Some(2200))])),
    ]);
    assert_eq!(
        text,
        "#1 RUN a\n#1 0.100 a1\n#1 0.150 a2\n#1 ...\n\n#2 RUN b\n#2 0.100 b1\n#2 0.150 b2\n#2 2.000 b3\n#2 ...\n\n\
         #1 RUN a\n#1 DONE 2.1s\n\n#2 RUN b\n#2 DONE 2.2s\n"
    );
}

#[test]
fn progress_is_said_now_and_then() {
    let transfer = |current, millis, done: bool| StatusResponse {
        statuses: vec![VertexStatus {
            id: "layer".into(),
            vertex: "a".into(),
            current,
            total: 1_000_000,
            timestamp: at(millis),
            started: at(0),
            completed: done.then(|| at(millis)).flatten(),
            ..VertexStatus::default()
        }],
        ..StatusResponse::default()
    };
    let text = shown(&[
        (0, vertexes(vec![vertex("a", "FROM x", Some(0), None)])),
        (0, transfer(0, 0, false)),
        (0, transfer(10_000, 100, false)),
        (0, transfer(60_000, 200, false)),
        (0, transfer(1_000_000, 300, true)),
    ]);
    assert_eq!(
        text,
        "#1 FROM x\n#1 layer 0B / 1.00MB\n#1 layer 60.00kB / 1.00MB 0.2s\n#1 layer 1.00MB / 1.00MB 0.3s done\n"
    );
}

#[test]
fn the_end_of_a_failed_build_shows_the_output_of_the_failed_step() {
    let mut board = Board::default();
    board.update(&vertexes(vec![vertex("a", "RUN a", Some(0), None)]));
    let many: String = (0..100).map(|n| format!("line {n}\n")).collect();
    board.update(&logs(vec![log("a", 100, &many)]));
    board.update(&vertexes(vec![Vertex {
        error: "exit".into(),
        ..vertex("a", "RUN a", Some(0), Some(1))
    }]));
    let text =
        crate::progress::render_error(Some(&board), &crate::buildkit::ErrorDetails::default());
    assert!(
        text.starts_with("------\n > RUN a:\n0.100 line 60\n"),
        "{text}"
    );
    assert!(text.ends_with("0.100 line 99\n------\n"), "{text}");
}

#[test]
fn warnings_are_listed() {
    let mut board = Board::default();
    let warning = VertexWarning {
        short: b"JSONArgsRecommended: use JSON (line 3)".to_vec(),
        url: "https://docs.example/x".into(),
        ..VertexWarning::default()
    };
    board.update(&StatusResponse {
        warnings: vec![warning],
        ..StatusResponse::default()
    });
    assert_eq!(
        crate::progress::render_warnings(&board),
        "\n 1 warning found:\n - JSONArgsRecommended: use JSON (line 3)\n   More info: https://docs.example/x\n"
    );
}

#[test]
fn rawjson_has_the_form_of_buildkits_client() {
    let message = StatusResponse {
        vertexes: vec![vertex("sha256:a", "RUN a", Some(0), None)],
        logs: vec![log("sha256:a", 1500, "hi")],
        ..StatusResponse::default()
    };
    assert_eq!(
        crate::progress::status_json(&message).to_string(),
        concat!(
            r#"{"logs":[{"data":"aGk=","stream":1,"timestamp":"1970-01-01T00:01:41.5Z","vertex":"sha256:a"}],"#,
            r#""vertexes":[{"digest":"sha256:a","name":"RUN a","started":"1970-01-01T00:01:40Z"}]}"#
        )
    );
}
