//! The order and the number of packets, with a client that does as it is told.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::mpsc;
use std::time::Duration;

use buildyard_layer::Time;

use super::feed::{self, AHEAD, CHUNK};
use super::{DirEntry, DirKind, DirSource};
use crate::wire::{Packet, PacketType};
use crate::{SessionError, go_mode};

/// Longer than any request takes on a busy machine: the order does not depend on the time.
const FOREVER: Duration = Duration::from_secs(600);

/// Directories of a hundred files; each file's bytes are of its number.
struct Source {
    sizes: Vec<Option<u64>>,
}

impl Source {
    /// A directory, then `count` files of `size` bytes.
    fn new(count: usize, size: u64) -> Self {
        let mut sizes = vec![None];
        sizes.extend(std::iter::repeat_n(Some(size), count));
        Self { sizes }
    }
}

impl DirSource for Source {
    fn paths(&self) -> usize {
        self.sizes.len()
    }

    fn entry(&self, number: usize) -> DirEntry {
        let (path, kind) = match self.sizes[number] {
            Some(size) => (format!("a/{number:08}"), DirKind::File(size)),
            None => ("a".to_owned(), DirKind::Directory),
        };
        DirEntry {
            path: path.into_bytes(),
            kind,
            mode: 0o644,
            mtime: Time::default(),
            xattrs: BTreeMap::new(),
        }
    }

    fn open(&self, number: usize) -> io::Result<Box<dyn Read + '_>> {
        let size = self.sizes[number].ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Box::new(io::repeat(number as u8).take(size)))
    }
}

/// What a client was sent.
#[derive(Default)]
struct Received {
    packets: usize,
    paths: Vec<Vec<u8>>,
    contents: BTreeMap<u32, u64>,
    ended: usize,
    /// Contents that were complete before the last path came.
    between: usize,
}

/// Sends `source` to a client that asks for the files that `wants` says as soon as it hears of them.
fn send(
    source: &Source,
    patience: Duration,
    wants: impl Fn(u32) -> bool,
) -> (Result<u64, SessionError>, Received) {
    let (sender, mut batches) = tokio::sync::mpsc::channel(feed::BATCHES);
    let (requests, queue) = mpsc::channel();
    std::thread::scope(|scope| {
        let feeding = scope.spawn(move || feed::run(source, &sender, queue, patience));
        let mut received = Received::default();
        let mut requests = Some(requests);
        let (mut listed, mut open) = (false, 0_usize);
        while let Some(batch) = batches.blocking_recv() {
            for packet in batch {
                received.packets += 1;
                match packet.r#type() {
                    PacketType::Stat => match packet.stat {
                        Some(stat) => {
                            let id = received.paths.len() as u32;
                            if stat.mode & go_mode::DIR == 0 && wants(id) {
                                open += 1;
                                let asked = requests.as_ref().map(|asking| asking.send(id));
                                assert!(matches!(asked, Some(Ok(()))));
                            }
                            received.paths.push(stat.path);
                        }
                        None => listed = true,
                    },
                    PacketType::Data if packet.data.is_empty() => {
                        received.ended += 1;
                        received.between += usize::from(!listed);
                        open -= 1;
                    }
                    PacketType::Data => take(&mut received, &packet),
                    other => assert_eq!(other, PacketType::Fin),
                }
                if listed && open == 0 {
                    requests = None;
                }
            }
        }
        let sent = feeding.join().expect("it does not panic");
        (sent, received)
    })
}

fn take(received: &mut Received, packet: &Packet) {
    assert!(packet.data.iter().all(|byte| *byte == packet.id as u8));
    *received.contents.entry(packet.id).or_default() += packet.data.len() as u64;
}

/// A packet a path and one for their end; of a file one for each 128 KiB, and one for its end; and the last word.
#[test]
fn packets_are_as_few_as_the_protocol_lets() {
    for (count, size, each) in [
        (3, 0, 0),
        (1000, 1, 1),
        (5, CHUNK as u64, 1),
        (5, 3 * CHUNK as u64 + 1, 4),
    ] {
        let source = Source::new(count, size);
        let (sent, received) = send(&source, FOREVER, |_| true);
        assert_eq!(sent.expect("sent"), count as u64 * size);
        assert_eq!(
            received.packets,
            count + 2 + count * (each + 1) + 1,
            "{count} of {size}"
        );
        assert_eq!(received.ended, count);
        assert!(received.contents.values().all(|bytes| *bytes == size));
        let names: Vec<Vec<u8>> = (0..=count).map(|n| source.entry(n).path).collect();
        assert_eq!(received.paths, names);
    }
}

/// The client makes paths and writes contents side by side, if it is given both.
#[test]
fn contents_go_in_between_the_paths() {
    let count = 10 * AHEAD;
    let (sent, received) = send(&Source::new(count, 100), FOREVER, |_| true);
    assert_eq!(sent.expect("sent"), count as u64 * 100);
    assert_eq!(received.ended, count);
    // All but those that it is ahead, and those that it had not asked for when the last path went out.
    assert!(
        received.between >= count - 2 * AHEAD,
        "{}",
        received.between
    );
}

/// It may have some already, or be slow to ask: then the paths go on.
#[test]
fn files_that_nobody_asks_for_hold_nothing_up() {
    let count = 10 * AHEAD;
    let third = |id: u32| id.is_multiple_of(3);
    let (sent, received) = send(&Source::new(count, 10), Duration::from_millis(1), third);
    assert_eq!(received.paths.len(), count + 1);
    let wanted = (1..=count as u32).filter(|id| third(*id)).count();
    assert_eq!(sent.expect("sent"), wanted as u64 * 10);
    assert_eq!(received.ended, wanted);
}

#[test]
fn what_may_not_be_asked_for_is_refused() {
    let refused = |ids: &'static [u32]| {
        let source = Source::new(2, 1);
        let (sender, mut batches) = tokio::sync::mpsc::channel(1);
        let (requests, queue) = mpsc::channel();
        std::thread::scope(|scope| {
            let feeding = scope.spawn(|| {
                let sender = sender;
                feed::run(&source, &sender, queue, FOREVER)
            });
            // All paths come in one batch.
            assert!(batches.blocking_recv().is_some());
            for id in ids {
                // Refused already, where that is why nobody listens.
                let _ = requests.send(*id);
            }
            while batches.blocking_recv().is_some() {}
            feeding.join().expect("it does not panic")
        })
    };
    for (ids, wrong) in [(&[0][..], 0), (&[3], 3), (&[1, 1], 1)] {
        let error = refused(ids).expect_err("refused").to_string();
        assert!(
            error.contains(&format!("it asked for file {wrong}")),
            "{error}"
        );
    }
}

/// A client that stops reading costs the batches on their way and the one at hand, however much there is to send.
#[test]
fn a_client_that_stops_reading_holds_a_bounded_number_of_bytes() {
    let opened = std::sync::atomic::AtomicUsize::new(0);
    struct Counting<'a>(&'a std::sync::atomic::AtomicUsize, Source);
    impl DirSource for Counting<'_> {
        fn paths(&self) -> usize {
            self.1.paths()
        }
        fn entry(&self, number: usize) -> DirEntry {
            self.1.entry(number)
        }
        fn open(&self, number: usize) -> io::Result<Box<dyn Read + '_>> {
            self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            self.1.open(number)
        }
    }
    let size = CHUNK as u64;
    let source = Counting(&opened, Source::new(400, size));
    let (sender, mut batches) = tokio::sync::mpsc::channel(feed::BATCHES);
    let (requests, queue) = mpsc::channel();
    std::thread::scope(|scope| {
        let feeding = scope.spawn(|| {
            let sender = sender;
            feed::run(&source, &sender, queue, FOREVER)
        });
        assert!(batches.blocking_recv().is_some(), "the paths");
        for id in 1..=400 {
            requests.send(id).expect("it listens");
        }
        // It fills the queue, and then waits: nothing else can happen until somebody reads.
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while batches.len() < feed::BATCHES {
            assert!(
                std::time::Instant::now() < deadline,
                "the queue never filled"
            );
            std::thread::yield_now();
        }
        // A batch ends with the packet that makes it full: two files of this size, and one more that is at hand.
        let most = (feed::BATCHES + 1) * 2 + 1;
        assert!(opened.load(std::sync::atomic::Ordering::SeqCst) <= most);
        drop(batches);
        assert!(feeding.join().expect("it does not panic").is_err());
        assert!(opened.load(std::sync::atomic::Ordering::SeqCst) <= most);
    });
}

mod streams {
    use std::pin::Pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use bollard_buildkit_proto::moby::filesync::v1::BytesMessage;
    use bollard_buildkit_proto::moby::filesync::v1::file_send_server::{FileSend, FileSendServer};
    use bytes::Bytes;
    use futures::{Stream, StreamExt, stream};
    use tonic::{Request, Response, Status, Streaming};

    use super::super::DIFF_COPY;
    use crate::{Session, testing};

    /// 1 MiB each.
    const PIECES: usize = 256;

    /// A client that reads what it is sent, or never does.
    struct Client {
        reads: bool,
    }

    type Answers = Pin<Box<dyn Stream<Item = Result<BytesMessage, Status>> + Send>>;

    #[tonic::async_trait]
    impl FileSend for Client {
        type DiffCopyStream = Answers;

        async fn diff_copy(
            &self,
            request: Request<Streaming<BytesMessage>>,
        ) -> Result<Response<Answers>, Status> {
            let mut incoming = request.into_inner();
            if !self.reads {
                // Kept, so that the call is not over.
                let unread = stream::once(std::future::pending()).chain(stream::once(async {
                    drop(incoming);
                    Err(Status::aborted("never"))
                }));
                return Ok(Response::new(Box::pin(unread)));
            }
            while incoming.message().await?.is_some() {}
            Ok(Response::new(Box::pin(stream::empty())))
        }
    }

    fn session(reads: bool) -> Session {
        let service = FileSendServer::new(Client { reads });
        let server = tonic::transport::Server::builder().add_service(service);
        testing::session(server, &[DIFF_COPY])
    }

    fn pieces(
        taken: &Arc<AtomicUsize>,
    ) -> impl Stream<Item = std::io::Result<Bytes>> + Send + use<> {
        static PIECE: [u8; 1 << 20] = [7; 1 << 20];
        let taken = taken.clone();
        stream::iter(0..PIECES).map(move |_| {
            taken.fetch_add(1, Ordering::SeqCst);
            Ok(Bytes::from_static(&PIECE))
        })
    }

    /// An archive for a client that stops reading waits in its queues, which are bounded, and other clients get theirs.
    #[tokio::test]
    async fn a_client_that_stops_reading_an_archive_holds_a_bounded_number_of_pieces() {
        let (stuck, reading) = (session(false), session(true));
        let (held, passed) = (Arc::default(), Arc::default());
        let attrs = std::collections::BTreeMap::new();
        let mut unread = std::pin::pin!(stuck.send_stream(0, &attrs, pieces(&held)));
        let other = reading.send_stream(0, &attrs, pieces(&passed));
        let other = tokio::time::timeout(Duration::from_secs(120), other);
        tokio::select! {
            sent = &mut unread => panic!("nothing was read, and yet: {sent:?}"),
            sent = other => {
                let bytes = sent.expect("it is not held up").expect("sent");
                assert_eq!(bytes, (PIECES << 20) as u64);
            }
        }
        // Eight in the queue, one that waits for a place there, and what the connection has taken, two at most.
        let held = held.load(Ordering::SeqCst);
        assert!(
            held <= 8 + 1 + 2,
            "{held} pieces for a client that reads none"
        );
    }
}
