//! A slow link between a client and an engine: bytes arrive later, and not more of them than the link carries.
//!
//! It is a relay in this process, not `tc netem`: many kernels lack that, and sockets in the file system have no queue to
//! attach it to. What it does not show is TCP's own slow start; round trips and bytes, which decide, it does.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::engine::Address;

/// How much is read at once.
const CHUNK: usize = 16 * 1024;
/// How many chunks are under way in one direction of a connection: 1 MB, more than what a link of 100 Mbit/s and 50 ms holds.
const UNDER_WAY: usize = 64;

/// What a link is like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    /// How long a byte is under way, one way.
    pub(crate) delay: Duration,
    /// Bytes a second, in each direction, for all connections together.
    pub(crate) rate: f64,
}

impl Link {
    /// 50 ms there and back, 100 Mbit/s.
    pub(crate) const SLOW: Self = Self {
        delay: Duration::from_millis(25),
        rate: 100e6 / 8.0,
    };
}

/// A port of loopback that leads over the link. Closed when dropped, with all its connections.
#[derive(Debug)]
pub(crate) struct Relay {
    port: u16,
    stop: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Relay {
    /// Opens one to `far`.
    pub(crate) fn open(far: Address, link: Link) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("a port for the slow link")?;
        let port = listener.local_addr()?.port();
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let accepting = std::thread::spawn(move || accept(&listener, &far, link, &told));
        Ok(Self {
            port,
            stop,
            accepting: Some(accepting),
        })
    }

    /// Where clients connect.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn accept(listener: &TcpListener, far: &Address, link: Link, stop: &AtomicBool) {
    let up = Arc::new(Lane::new(link));
    let down = Arc::new(Lane::new(link));
    let mut ends: Vec<Stream> = Vec::new();
    let mut pumps = Vec::new();
    while let Ok((near, _)) = listener.accept() {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        // Who cannot be connected sees its connection end, as with a real link.
        if let Ok(far) = Stream::connect(far) {
            let near = Stream::Tcp(near);
            pumps.extend(pump(&near, &far, &up));
            pumps.extend(pump(&far, &near, &down));
            ends.extend([near, far]);
        }
    }
    for end in &ends {
        end.shutdown(Shutdown::Both);
    }
    for pump in pumps {
        let _ = pump.join();
    }
}

/// One direction of the link.
#[derive(Debug)]
struct Lane {
    link: Link,
    free: Mutex<Instant>,
}

impl Lane {
    fn new(link: Link) -> Self {
        Self {
            link,
            free: Mutex::new(Instant::now()),
        }
    }

    /// When `bytes` that are sent now are all there.
    fn arrival(&self, bytes: usize) -> Instant {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = Duration::from_secs_f64(bytes as f64 / self.link.rate);
        *free = (*free).max(Instant::now()) + sent;
        *free + self.link.delay
    }
}

/// Two threads: one reads and says when what it read arrives, one waits for that and writes.
fn pump(from: &Stream, to: &Stream, lane: &Arc<Lane>) -> Vec<JoinHandle<()>> {
    let (Ok(mut from), Ok(mut to)) = (from.try_clone(), to.try_clone()) else {
        return Vec::new();
    };
    let (sender, receiver) = sync_channel(UNDER_WAY);
    let lane = lane.clone();
    let reading = std::thread::spawn(move || read(&mut from, &lane, &sender));
    let writing = std::thread::spawn(move || write(&mut to, &receiver));
    vec![reading, writing]
}

type Chunk = (Instant, Vec<u8>);

fn read(from: &mut Stream, lane: &Lane, sender: &SyncSender<Chunk>) {
    let mut buffer = vec![0; CHUNK];
    loop {
        // The end of a connection travels as long as its bytes.
        let bytes = from.read(&mut buffer).unwrap_or_default();
        let chunk = (lane.arrival(bytes), buffer[..bytes].to_vec());
        if sender.send(chunk).is_err() || bytes == 0 {
            return;
        }
    }
}

fn write(to: &mut Stream, receiver: &Receiver<Chunk>) {
    for (arrival, bytes) in receiver {
        std::thread::sleep(arrival.saturating_duration_since(Instant::now()));
        if bytes.is_empty() {
            to.shutdown(Shutdown::Write);
        } else if to.write_all(&bytes).is_err() {
            return;
        }
    }
}

/// A connection of either kind.
#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn connect(to: &Address) -> std::io::Result<Self> {
        match to {
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                Ok(Self::Tcp(stream))
            }
            Address::Socket(path) => Ok(Self::Unix(UnixStream::connect(path)?)),
        }
    }

    fn try_clone(&self) -> std::io::Result<Self> {
        match self {
            Self::Tcp(stream) => {
                stream.set_nodelay(true)?;
                Ok(Self::Tcp(stream.try_clone()?))
            }
            Self::Unix(stream) => Ok(Self::Unix(stream.try_clone()?)),
        }
    }

    /// The other end may have done so already.
    fn shutdown(&self, how: Shutdown) {
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(how),
            Self::Unix(stream) => stream.shutdown(how),
        };
    }

    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes),
            Self::Unix(stream) => stream.write_all(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An echo behind a link; returns what `size` bytes took there and back.
    fn echoed(size: usize, link: Link) -> Duration {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("bound").to_string();
        let echo = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("accepted");
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).expect("read");
            stream.write_all(&bytes).expect("written");
        });
        let relay = Relay::open(Address::Tcp(address), link).expect("open");
        let mut near = TcpStream::connect(("127.0.0.1", relay.port())).expect("connected");
        let start = Instant::now();
        let sent: Vec<u8> = (0..size).map(|number| number as u8).collect();
        near.write_all(&sent).expect("written");
        near.shutdown(Shutdown::Write).expect("closed");
        let mut back = Vec::new();
        near.read_to_end(&mut back).expect("read");
        let took = start.elapsed();
        echo.join().expect("the echo has ended");
        assert_eq!(back, sent);
        took
    }

    #[test]
    fn bytes_arrive_whole_and_late() {
        // Lower bounds only: a busy machine makes everything later, never sooner.
        let far = Link {
            delay: Duration::from_millis(30),
            rate: 1e9,
        };
        assert!(echoed(10, far) >= Duration::from_millis(60));
        let narrow = Link {
            delay: Duration::ZERO,
            rate: 1e6,
        };
        assert!(echoed(100_000, narrow) >= Duration::from_millis(200));
    }
}
