//! Status messages and what a terminal shows of them.

use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1::{Vertex, VertexLog, VertexStatus};

use super::*;
use crate::buildkit::ErrorDetails;
use crate::progress::render_error;

const WIDE: (usize, usize) = (60, 24);
const EMULATED: &str = "on one, emulated by qemu-aarch64";

fn at(second: i64) -> Option<Timestamp> {
    Some(Timestamp {
        seconds: 100 + second,
        nanos: 0,
    })
}

/// A step that has begun and lasts so many seconds, or runs.
fn vertex(name: &str, lasts: Option<i64>) -> Vertex {
    Vertex {
        digest: name.into(),
        name: name.into(),
        started: at(0),
        completed: lasts.and_then(at),
        ..Vertex::default()
    }
}

fn log(name: &str, text: &str) -> VertexLog {
    VertexLog {
        vertex: name.into(),
        timestamp: at(1),
        msg: text.into(),
        ..VertexLog::default()
    }
}

/// What is said about where a step runs.
fn place(name: &str, text: &str) -> VertexStatus {
    VertexStatus {
        id: text.into(),
        vertex: name.into(),
        started: at(0),
        completed: at(0),
        ..VertexStatus::default()
    }
}

fn message(
    vertexes: Vec<Vertex>,
    statuses: Vec<VertexStatus>,
    logs: Vec<VertexLog>,
) -> StatusResponse {
    StatusResponse {
        vertexes,
        statuses,
        logs,
        ..StatusResponse::default()
    }
}

/// A display that has got a message, two seconds ago.
fn shown(status: &StatusResponse) -> (Tty, Instant) {
    let mut tty = Tty::on(ProgressDrawTarget::hidden());
    tty.take(status, tty.begun);
    let now = tty.begun + Duration::from_secs(2);
    (tty, now)
}

/// A line of 60 columns, of which the last is left free.
fn line(left: &str, right: &str) -> String {
    format!("{left}{right:>width$}", width = 59 - left.chars().count())
}

#[test]
fn running_steps_have_a_name_a_time_and_their_last_output() {
    let waiting = Vertex {
        started: None,
        ..vertex("[3/3] RUN last", None)
    };
    let steps = vec![
        vertex("[1/3] RUN first", Some(1)),
        vertex("[2/3] RUN second\nand more of it", None),
        waiting,
    ];
    let output: String = (1..=8).map(|number| format!("line {number}\n")).collect();
    let logs = vec![log("[2/3] RUN second\nand more of it", &output)];
    let (mut tty, now) = shown(&message(steps, vec![], logs));

    let frame = tty.frame(WIDE, now);
    assert_eq!(frame.finished, [line(" => [1/3] RUN first", "1.0s")]);
    let mut expected = vec![
        "[+] Building 2.0s (1/3)".to_owned(),
        line(" => [2/3] RUN second", "2.0s"),
    ];
    expected.extend((3..=8).map(|number| format!(" => => # 1.000 line {number}")));
    assert_eq!(frame.running, expected);

    tty.take(
        &message(
            vec![vertex("[2/3] RUN second\nand more of it", Some(4))],
            vec![],
            vec![],
        ),
        now,
    );
    let frame = tty.frame(WIDE, now);
    assert_eq!(frame.finished, [line(" => [2/3] RUN second", "4.0s")]);
    assert_eq!(frame.running, ["[+] Building 2.0s (2/3)"]);
}

#[test]
fn how_a_step_ended_is_said_once() {
    let mut cached = vertex("[1/4] RUN one", Some(0));
    cached.cached = true;
    let mut failed = vertex("[2/4] RUN two", Some(3));
    failed.error = "process \"two\" did not complete successfully: exit code: 7".into();
    let mut canceled = vertex("[3/4] RUN three", Some(3));
    canceled.error = "context canceled".into();
    let logs = vec![log("[2/4] RUN two", "reading\ncannot read")];
    let (mut tty, now) = shown(&message(vec![cached, failed, canceled], vec![], logs));

    let expected = [
        line(" => CACHED [1/4] RUN one", "0.0s"),
        line(" => ERROR [2/4] RUN two", "3.0s"),
        line(" => CANCELED [3/4] RUN three", "3.0s"),
    ];
    assert_eq!(tty.frame(WIDE, now).finished, expected);
    assert!(tty.frame(WIDE, now).finished.is_empty());
    assert_eq!(
        render_error(tty.board(), &ErrorDetails::default()),
        "------\n > [2/4] RUN two:\n1.000 reading\n1.000 cannot read\n------\n"
    );
}

#[test]
fn emulated_steps_say_so_while_they_run_and_afterwards() {
    let steps = vec![
        vertex("[linux/arm64 1/2] RUN a", None),
        vertex("[linux/amd64 1/2] RUN a", None),
    ];
    let places = vec![
        place("[linux/arm64 1/2] RUN a", EMULATED),
        place("[linux/amd64 1/2] RUN a", "on one, native"),
    ];
    let (mut tty, now) = shown(&message(steps, places, vec![]));
    let lines = [
        line(" => [linux/arm64 1/2] RUN a", "emulated 2.0s"),
        line(" => [linux/amd64 1/2] RUN a", "2.0s"),
    ];
    assert_eq!(tty.frame(WIDE, now).running[1..], lines);

    let ended = vec![vertex("[linux/arm64 1/2] RUN a", Some(9))];
    tty.take(&message(ended, vec![], vec![]), now);
    assert_eq!(
        tty.frame(WIDE, now).finished,
        [line(" => [linux/arm64 1/2] RUN a", "emulated 9.0s")]
    );
}

#[test]
fn a_narrow_terminal_cuts_names_and_nothing_else() {
    let name = "[linux/arm64 stage-1 2/9] RUN apk add --no-cache gcc";
    let mut cached = vertex("[linux/arm64 stage-1 1/9] WORKDIR /usr/src/app", Some(1));
    cached.cached = true;
    let steps = vec![
        cached,
        vertex(name, None),
        vertex("[3/9] RUN 世界世界世界世界世界", None),
    ];
    let logs = vec![log(name, "0123456789012345678901234567890123456789\n")];
    let (mut tty, now) = shown(&message(steps, vec![place(name, EMULATED)], logs));

    let frame = tty.frame((30, 24), now);
    assert_eq!(frame.finished, [" => CACHED [linux/arm64… 1.0s"]);
    let expected = [
        "[+] Building 2.0s (1/3)",
        " => [linux/arm… emulated 2.0s",
        " => => # 1.000 01234567890123…",
        " => [3/9] RUN 世界世界…  2.0s",
    ];
    assert_eq!(frame.running, expected);
}

#[test]
fn in_a_low_terminal_output_gives_way_to_the_steps() {
    let names = ["[1/3] RUN one", "[2/3] RUN two", "[3/3] RUN three"];
    let steps = names.map(|name| vertex(name, None)).into();
    let logs = names.map(|name| log(name, "a\nb\nc\nd\n")).into();
    let (mut tty, now) = shown(&message(steps, vec![], logs));
    let running = tty.frame((60, 5), now).running;
    assert_eq!(
        running[1..],
        names.map(|name| line(&format!(" => {name}"), "2.0s"))
    );
}
