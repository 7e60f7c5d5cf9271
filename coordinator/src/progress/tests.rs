use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bollard_buildkit_proto::moby::buildkit::v1::{StatusResponse, Vertex};
use futures::{FutureExt, StreamExt};

use super::*;

fn at(millis: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis)
}

fn step(name: &str) -> Digest {
    Digest::of(name)
}

fn declare(progress: &Progress, name: &str) -> Digest {
    progress.declare(
        step(name),
        VertexInfo {
            name: name.to_owned(),
            ..Default::default()
        },
    );
    step(name)
}

/// Everything that a subscriber sees of a finished build.
fn all(progress: &Arc<Progress>) -> Vec<StatusResponse> {
    progress
        .subscribe()
        .collect::<Vec<_>>()
        .now_or_never()
        .expect("a finished build is told at once")
}

fn vertices(messages: &[StatusResponse]) -> Vec<Vertex> {
    messages
        .iter()
        .flat_map(|message| message.vertexes.clone())
        .collect()
}

fn text(messages: &[StatusResponse]) -> String {
    let logs = messages.iter().flat_map(|message| &message.logs);
    logs.map(|log| String::from_utf8_lossy(&log.msg).into_owned())
        .collect()
}

#[test]
fn a_finished_build_is_replayed_with_its_last_states() {
    let progress = Arc::new(Progress::default());
    let (one, two, three) = (
        declare(&progress, "one"),
        declare(&progress, "two"),
        declare(&progress, "three"),
    );
    progress.started(one, at(1));
    progress.log(one, STDOUT, b"hello\n", at(2));
    progress.completed(one, at(3));
    progress.cached(two, at(4));
    progress.started(three, at(5));
    progress.failed(three, "no", at(6));
    progress.finish(at(7));
    let messages = all(&progress);
    assert_eq!(messages.len(), 1);
    let [one, two, three] = &vertices(&messages)[..] else {
        panic!("{messages:?}")
    };
    assert_eq!(
        (
            one.started.unwrap().nanos,
            one.completed.unwrap().nanos,
            one.cached
        ),
        (1_000_000, 3_000_000, false)
    );
    assert_eq!((two.started, two.cached), (two.completed, true));
    assert_eq!(
        (three.error.as_str(), three.completed.is_some()),
        ("no", true)
    );
    assert_eq!(text(&messages), "hello\n");
}

#[test]
fn what_is_open_at_the_end_is_shown_as_given_up() {
    let progress = Arc::new(Progress::default());
    let (open, never) = (declare(&progress, "open"), declare(&progress, "never"));
    progress.started(open, at(1));
    progress.finish(at(9));
    progress.completed(never, at(10));
    let vertices = vertices(&all(&progress));
    assert_eq!(vertices[0].error, "context canceled");
    assert_eq!(
        (vertices[1].started, vertices[1].completed),
        (None, None),
        "told nothing after the end"
    );
}

#[test]
fn a_step_that_runs_again_is_open_again() {
    let progress = Progress::default();
    let step = declare(&progress, "step");
    progress.started(step, at(1));
    progress.failed(step, "worker lost", at(2));
    progress.started(step, at(3));
    let record = &progress.vertices()[0];
    assert_eq!(
        (record.started, record.completed, record.error.as_str()),
        (Some(at(3)), None, "")
    );
}

#[test]
fn counters_keep_their_start_and_are_bounded() {
    let progress = Progress::default();
    let step = declare(&progress, "step");
    let update = |id: &str, current, started| StatusUpdate {
        id: id.into(),
        current,
        started,
        ..Default::default()
    };
    progress.status(step, update("layer", 1, Some(at(1))), at(1));
    progress.status(step, update("layer", 2, None), at(2));
    for number in 0..2000 {
        progress.status(step, update(&number.to_string(), 0, None), at(3));
    }
    let record = &progress.vertices()[0];
    assert_eq!(record.statuses.len(), 1000);
    assert_eq!(
        (
            record.statuses[0].update.current,
            record.statuses[0].update.started
        ),
        (2, Some(at(1)))
    );
}

#[test]
fn pieces_that_come_together_are_one_message() {
    let progress = Arc::new(Progress::default());
    let step = declare(&progress, "step");
    for millis in [1, 5, 9, 40] {
        progress.log(step, STDOUT, b"x", at(millis));
    }
    progress.log(step, STDERR, b"e", at(41));
    progress.finish(at(50));
    let messages = all(&progress);
    let logs: Vec<_> = messages[0]
        .logs
        .iter()
        .map(|log| (log.stream, log.msg.as_slice()))
        .collect();
    assert_eq!(logs, [(1, &b"xxx"[..]), (1, b"x"), (2, b"e")]);
}

#[test]
fn a_long_log_keeps_its_beginning_and_its_end() {
    let limits = LogLimits {
        head: 1000,
        tail: 1000,
        build: 1 << 20,
    };
    let progress = Arc::new(Progress::new(limits));
    let step = declare(&progress, "step");
    for number in 0..1000_u64 {
        progress.log(
            step,
            STDOUT,
            format!("line {number}\n").as_bytes(),
            at(number * 20),
        );
    }
    let kept: usize = progress
        .log_of(step)
        .iter()
        .map(|line| line.data.len())
        .sum();
    assert!(kept < 2200, "{kept}");
    progress.finish(at(0));
    let text = text(&all(&progress));
    assert!(text.starts_with("line 0\nline 1\n"), "{text}");
    assert!(text.ends_with("line 998\nline 999\n"), "{text}");
    assert!(text.contains("bytes left out]\n"), "{text}");
}

#[test]
fn the_builds_limit_holds_over_all_steps() {
    let limits = LogLimits {
        head: 10_000,
        tail: 10_000,
        build: 50_000,
    };
    let progress = Progress::new(limits);
    let steps: Vec<_> = (0..20)
        .map(|number| declare(&progress, &number.to_string()))
        .collect();
    for round in 0..100_u64 {
        for step in &steps {
            progress.log(*step, STDOUT, &[b'x'; 500], at(round * 20));
        }
    }
    let kept: usize = steps
        .iter()
        .flat_map(|step| progress.log_of(*step))
        .map(|line| line.data.len())
        .sum();
    // The first words of each step are kept all the same.
    assert!(kept <= 50_000 + 20 * 4_096, "{kept}");
    assert!(steps.iter().all(|step| !progress.log_of(*step).is_empty()));
}

#[test]
fn large_replays_come_in_messages_that_clients_take() {
    let progress = Arc::new(Progress::default());
    for name in ["a", "b", "c", "d"] {
        let step = declare(&progress, name);
        for round in 0..30_u64 {
            progress.log(step, STDOUT, &[b'x'; 60_000], at(round * 20));
        }
    }
    progress.finish(at(0));
    let messages = all(&progress);
    assert!(
        messages
            .iter()
            .all(|message| prost::Message::encoded_len(message) < 2 << 20)
    );
    assert_eq!(text(&messages).matches('x').count(), 4 * 30 * 60_000);
    assert_eq!(vertices(&messages).len(), 4, "each state once");
}

#[tokio::test]
async fn a_chatty_step_makes_few_messages_and_live_states_arrive() {
    let progress = Arc::new(Progress::default());
    let mut stream = Box::pin(progress.subscribe());
    let step = declare(&progress, "step");
    progress.started(step, at(0));
    let first = stream.next().await.unwrap();
    assert_eq!(first.vertexes[0].completed, None);
    let teller = {
        let progress = progress.clone();
        tokio::spawn(async move {
            for number in 0..200_u64 {
                progress.log(step, STDOUT, b"line\n", at(number));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            progress.completed(step, at(1000));
            progress.finish(at(1001));
        })
    };
    let begun = std::time::Instant::now();
    let rest: Vec<_> = stream.collect().await;
    teller.await.unwrap();
    // One a batch, however long the lines took, and a few for the states.
    let most = begun.elapsed().as_millis() / 50 + 10;
    assert!(
        rest.len() as u128 <= most,
        "{} messages for 200 lines",
        rest.len()
    );
    assert_eq!(text(&rest).lines().count(), 200);
    assert!(
        vertices(&rest)
            .iter()
            .any(|vertex| vertex.completed.is_some())
    );
}

#[tokio::test]
async fn a_slow_subscriber_gets_the_newest_state_and_holds_nobody_up() {
    let progress = Arc::new(Progress::new(LogLimits {
        head: 1000,
        tail: 1000,
        build: 10_000,
    }));
    let step = declare(&progress, "step");
    let mut stream = Box::pin(progress.subscribe());
    stream.next().await.unwrap();
    for number in 0..100_000_i64 {
        let id = "bytes".to_owned();
        progress.status(
            step,
            StatusUpdate {
                id,
                current: number,
                ..Default::default()
            },
            at(0),
        );
        progress.log(step, STDOUT, b"0123456789\n", at(number as u64 * 20));
    }
    let next = stream.next().await.unwrap();
    assert_eq!(
        next.statuses
            .iter()
            .map(|status| status.current)
            .collect::<Vec<_>>(),
        [99_999]
    );
    assert!(text(&[next]).len() < 3000);
    progress.finish(at(0));
    assert!(stream.next().await.is_none());
}

#[test]
fn warnings_are_bounded_and_named() {
    let progress = Arc::new(Progress::default());
    for number in 0..600 {
        progress.warn(Warning {
            short: number.to_string(),
            vertex: Some(step("a")),
            ..Default::default()
        });
    }
    assert_eq!(progress.warnings().len(), 500);
    assert_eq!(progress.warnings()[0].vertex, step("a").to_string());
}
