//! How much goes over the session for a context. A packet costs the client more than the bytes in it, and on a link to
//! somewhere else each round of questions costs its delay.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::fsutil::types::{Packet, Stat};
use futures::future::BoxFuture;
use prost::Message;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::{SyncRequest, Synced};
use crate::testing::{Files, Packs, packet, stat_packet};

const FILES: usize = 3000;
const CONTENT: &[u8] = b"a small file";

/// Packets that the client received, by what they say, and the bytes of those that it sent.
#[derive(Default)]
struct Counted {
    asked: AtomicUsize,
    fins: AtomicUsize,
    sent: AtomicUsize,
    bytes: AtomicUsize,
}

type Outgoing = mpsc::Sender<Result<Packet, Status>>;

impl Counted {
    async fn say(&self, outgoing: &Outgoing, packet: Packet) {
        self.sent.fetch_add(1, Ordering::SeqCst);
        self.bytes.fetch_add(packet.encoded_len(), Ordering::SeqCst);
        let _ = outgoing.send(Ok(packet)).await;
    }
}

/// A client with these files that counts.
async fn serve(
    files: Arc<Vec<Stat>>,
    counted: Arc<Counted>,
    mut incoming: Streaming<Packet>,
    outgoing: Outgoing,
) {
    for stat in files.iter() {
        counted
            .say(&outgoing, stat_packet(Some(stat.clone())))
            .await;
    }
    counted.say(&outgoing, stat_packet(None)).await;
    while let Ok(Some(asked)) = incoming.message().await {
        match asked.r#type() {
            PacketType::PacketReq => {
                counted.asked.fetch_add(1, Ordering::SeqCst);
                for data in [CONTENT, b""] {
                    let data = packet(PacketType::PacketData, asked.id, data.to_vec());
                    counted.say(&outgoing, data).await;
                }
            }
            PacketType::PacketFin => {
                counted.fins.fetch_add(1, Ordering::SeqCst);
                let fin = packet(PacketType::PacketFin, 0, Vec::new());
                counted.say(&outgoing, fin).await;
            }
            other => panic!("a receiver sent {other:?}"),
        }
    }
}

fn files(edited: Option<usize>) -> Vec<Stat> {
    let file = |number| Stat {
        path: format!("f{number:05}"),
        mode: 0o644,
        size: CONTENT.len() as i64,
        mod_time: if edited == Some(number) { 2 } else { 1 },
        ..Default::default()
    };
    (0..FILES).map(file).collect()
}

/// Takes the files over, with what is known of the last time.
async fn taken(
    edited: Option<usize>,
    previous: Option<&Synced>,
    packs: &Packs,
) -> (Synced, Arc<Counted>) {
    let counted = Arc::new(Counted::default());
    let files = Arc::new(files(edited));
    let counting = counted.clone();
    let ended = Arc::new(Mutex::new(Vec::new()));
    let handles = ended.clone();
    let behave = move |incoming: Streaming<Packet>, outgoing: Outgoing| {
        let (ending, over) = tokio::sync::oneshot::channel::<()>();
        handles.lock().expect("no test panics with it").push(over);
        let serving = serve(files.clone(), counting.clone(), incoming, outgoing);
        Box::pin(async move {
            serving.await;
            drop(ending);
        }) as BoxFuture<'static, ()>
    };
    let session = Files(Arc::new(behave)).session();
    let request = SyncRequest {
        dir_name: "context".into(),
        previous: previous.map(|before| Arc::new(before.toc.clone())),
        ..Default::default()
    };
    let synced = session.sync_dir(request, packs.create()).await;
    let over = ended.lock().expect("no test panics with it").pop();
    let client = over.expect("it was asked");
    // Only what the client has seen is counted, so it has to have seen everything.
    let waited = tokio::time::timeout(Duration::from_secs(60), client).await;
    assert!(waited.is_ok(), "the client ends");
    (synced.expect("taken"), counted)
}

/// A packet a path, and for each file that travels one that asks for it and two that bring it. Nothing else, but the ends.
#[tokio::test]
async fn only_what_changed_is_asked_for() {
    let packs = Packs::default();
    let (first, new) = taken(None, None, &packs).await;
    let (_, same) = taken(None, Some(&first), &packs).await;
    let (_, edited) = taken(Some(1234), Some(&first), &packs).await;
    for (counted, travel) in [(new, FILES), (same, 0), (edited, 1)] {
        assert_eq!(counted.asked.load(Ordering::SeqCst), travel);
        assert_eq!(counted.fins.load(Ordering::SeqCst), 1);
        // The paths, their end, the contents and theirs, the last word.
        assert_eq!(
            counted.sent.load(Ordering::SeqCst),
            FILES + 1 + 2 * travel + 1
        );
        // A path has 23 bytes here; a content its own, and 10 at most around it and its end.
        let most = FILES * 23 + travel * (CONTENT.len() + 10) + 4;
        let bytes = counted.bytes.load(Ordering::SeqCst);
        assert!(bytes <= most, "{bytes} of at most {most}");
    }
}
