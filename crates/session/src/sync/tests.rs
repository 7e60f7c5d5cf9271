//! Transfers from clients at the other end of a pipe: good ones of any shape, and bad ones.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bollard_buildkit_proto::fsutil::types::packet::PacketType::{
    PacketData, PacketErr, PacketFin, PacketReq,
};
use bollard_buildkit_proto::fsutil::types::{Packet, Stat};
use buildyard_layer::Kind;
use buildyard_model::{Digest, FlatId};
use proptest::prelude::*;

use super::{Pack, PackError, SyncLimits, SyncRequest, Synced};
use crate::SessionError;
use crate::go_mode;
use crate::testing::{Files, Packs, packet, stat_packet};

const LONG: Duration = Duration::from_secs(60);

fn file(path: &str, content: &[u8], mod_time: i64) -> (Stat, Vec<u8>) {
    let size = content.len() as i64;
    (
        Stat {
            path: path.into(),
            mode: 0o644,
            size,
            mod_time,
            ..Default::default()
        },
        content.to_vec(),
    )
}

fn request() -> SyncRequest {
    SyncRequest {
        dir_name: "context".into(),
        ..Default::default()
    }
}

async fn sync(
    session: crate::Session,
    request: SyncRequest,
    packs: &Packs,
) -> Result<Synced, SessionError> {
    tokio::time::timeout(LONG, session.sync_dir(request, packs.create()))
        .await
        .expect("it ends")
}

/// Paths in the protocol's order.
fn ordered(files: BTreeMap<Vec<&'static str>, (Vec<u8>, i64)>) -> Vec<(Stat, Vec<u8>)> {
    files
        .into_iter()
        .map(|(path, (content, time))| file(&path.join("/"), &content, time))
        .collect()
}

fn trees() -> impl Strategy<Value = BTreeMap<Vec<&'static str>, (Vec<u8>, i64)>> {
    let name = prop_oneof![Just("a"), Just("a.txt"), Just("b"), Just("ü"), Just("z")];
    let path = prop::collection::vec(name, 1..3);
    let content = prop_oneof![
        Just(Vec::new()),
        prop::collection::vec(any::<u8>(), 1..2000)
    ];
    prop::collection::btree_map(path, (content, 0_i64..3), 0..12).prop_map(|mut files| {
        // What is a file has nothing beneath it.
        let paths: Vec<_> = files.keys().cloned().collect();
        files.retain(|path, _| {
            !paths
                .iter()
                .any(|other| other.len() < path.len() && path.starts_with(other))
        });
        files
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever the tree, the pieces and the previous tree: what is there afterwards is what the client has.
    #[test]
    fn every_tree_arrives_and_only_changes_travel(old in trees(), new in trees(), piece in 1_usize..700) {
        // The same path with the same size and time has the same content, as on any sane disk.
        let mut new = new;
        for (path, (content, time)) in &mut new {
            if let Some((before, at)) = old.get(path) && before.len() == content.len() && at == time {
                content.clone_from(before);
            }
        }
        let travels = new.iter().filter(|(path, now)| !now.0.is_empty() && old.get(*path) != Some(now)).count();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let packs = Packs::default();
            let first = sync(Files::serving(ordered(old.clone()), piece), request(), &packs).await.unwrap();
            let second = SyncRequest { previous: Some(Arc::new(first.toc)), ..request() };
            let files = ordered(new.clone());
            let second = sync(Files::serving(files.clone(), piece), second, &packs).await.unwrap();
            let expected: Vec<_> = files.iter().map(|(stat, content)| (stat.path.clone(), content.clone())).collect();
            assert_eq!(packs.contents(&second.toc), expected);
            for (entry, (_, content)) in second.toc.entries.iter().zip(&files) {
                assert!(matches!(&entry.kind, Kind::File { content: digest, .. } if *digest == Digest::of(content)));
            }
            assert_eq!((second.files, second.flat.is_some()), (travels as u64, travels > 0));
        });
    }
}

#[tokio::test]
async fn an_empty_directory_is_an_empty_toc_and_no_pack() {
    let packs = Packs::default();
    let synced = sync(Files::serving(Vec::new(), 1), request(), &packs)
        .await
        .unwrap();
    assert_eq!(
        (synced.toc.entries.len(), synced.flat, packs.count()),
        (0, None, 0)
    );
}

#[tokio::test]
async fn more_files_than_any_queue_holds_arrive() {
    let packs = Packs::default();
    let files: Vec<_> = (10_000..15_000)
        .map(|number| file(&number.to_string(), b"content", 1))
        .collect();
    let synced = sync(Files::serving(files, 100), request(), &packs)
        .await
        .unwrap();
    assert_eq!((synced.files, synced.bytes), (5000, 35_000));
}

/// A client that says these packets fails its transfer, and the message names the reason.
async fn refused(packets: Vec<Packet>, reason: &str) {
    let packs = Packs::default();
    let limits = SyncLimits {
        entries: 3,
        bytes: 4096,
        ..Default::default()
    };
    let session = Files::saying(packets);
    let err = sync(
        session,
        SyncRequest {
            limits,
            ..request()
        },
        &packs,
    )
    .await
    .expect_err(reason)
    .to_string();
    assert!(err.contains(reason), "{reason:?} in {err:?}");
    assert_eq!(packs.count(), 0, "nothing is kept");
}

#[tokio::test]
async fn bad_clients_are_refused_with_the_reason() {
    let stat = |path: &str, size: usize| stat_packet(Some(file(path, &vec![0; size], 1).0));
    let end = || stat_packet(None);
    let data = |id, bytes: &[u8]| packet(PacketData, id, bytes.to_vec());
    refused(vec![stat("../a", 1)], "not a plain relative path").await;
    refused(vec![stat("/etc/passwd", 1)], "not a plain relative path").await;
    refused(vec![stat("b", 1), stat("a", 1)], "out of order").await;
    refused(vec![stat("a", 1), stat("a", 1)], "out of order").await;
    let link = Stat {
        path: "a".into(),
        mode: go_mode::SYMLINK | 0o777,
        linkname: "/etc".into(),
        ..Default::default()
    };
    let beneath = "path \"a/passwd\" lies beneath \"a\", which is no directory";
    refused(vec![stat_packet(Some(link)), stat("a/passwd", 1)], beneath).await;
    refused(vec![stat("a", 1), stat("a/passwd", 1)], beneath).await;
    refused(
        vec![stat("a", 0), stat("b", 0), stat("c", 0), stat("d", 0)],
        "more than 3 paths",
    )
    .await;
    refused(vec![stat("a", 5000)], "more than 4096 bytes").await;
    refused(
        vec![stat("a", 1), data(0, b"xy")],
        "\"a\" was 1 bytes long and changed",
    )
    .await;
    refused(
        vec![stat("a", 3), data(0, b"xy"), data(0, b"")],
        "\"a\" was 3 bytes long and changed",
    )
    .await;
    refused(
        vec![stat("a", 3), data(1, b"x")],
        "content 1 was not asked for",
    )
    .await;
    refused(
        vec![stat("a", 0), data(0, b"x")],
        "content 0 was not asked for",
    )
    .await;
    refused(vec![end(), stat("a", 1)], "").await;
    refused(
        vec![packet(PacketErr, 0, b"permission denied".to_vec())],
        "permission denied",
    )
    .await;
    refused(
        vec![packet(PacketFin, 0, Vec::new())],
        "before it had sent everything",
    )
    .await;
    refused(vec![packet(PacketReq, 0, Vec::new())], "unexpected packet").await;
    refused(
        vec![Packet {
            r#type: 77,
            ..Default::default()
        }],
        "unexpected packet",
    )
    .await;
}

#[tokio::test]
async fn a_client_that_stops_in_the_middle_is_an_error() {
    let behave = |_, outgoing: tokio::sync::mpsc::Sender<_>| {
        Box::pin(async move {
            let _ = outgoing
                .send(Ok(stat_packet(Some(file("a", b"x", 1).0))))
                .await;
        }) as futures::future::BoxFuture<'static, ()>
    };
    let err = sync(
        Files(Arc::new(behave)).session(),
        request(),
        &Packs::default(),
    )
    .await
    .unwrap_err();
    assert!(err.to_string().contains("stopped in the middle"), "{err}");
}

#[tokio::test]
async fn a_closed_session_ends_the_transfer() {
    let session = Files::saying(vec![stat_packet(Some(file("a", b"x", 1).0))]);
    let closed = session.closed().clone();
    let transfer = session.sync_dir(request(), Packs::default().create());
    let (outcome, ()) = tokio::join!(transfer, async { closed.cancel() });
    assert!(
        matches!(outcome, Err(SessionError::Closed(_))),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn a_client_without_files_is_told_apart() {
    let server = tonic::transport::Server::builder().add_routes(tonic::service::Routes::default());
    let session = crate::testing::session(server, &[]);
    let err = session
        .sync_dir(request(), Packs::default().create())
        .await
        .unwrap_err();
    assert!(matches!(err, SessionError::Unsupported { .. }), "{err}");
    assert!(
        err.to_string()
            .contains("the files of \"context\" are needed"),
        "{err}"
    );
}

#[tokio::test]
async fn a_pack_that_fails_ends_the_transfer_with_its_reason() {
    struct Full;
    impl Pack for Full {
        fn write_at(&mut self, _: u64, _: &[u8]) -> Result<(), PackError> {
            Err(PackError("no space left on device".into()))
        }
        fn finish(self: Box<Self>, _: u64) -> Result<FlatId, PackError> {
            Err(PackError("never asked".into()))
        }
    }
    let session = Files::serving(vec![file("a", &[1; 100_000], 1)], 100);
    let outcome = tokio::time::timeout(LONG, session.sync_dir(request(), Box::new(Full)))
        .await
        .expect("it ends");
    let err = outcome.unwrap_err().to_string();
    assert!(err.contains("no space left on device"), "{err}");
}
