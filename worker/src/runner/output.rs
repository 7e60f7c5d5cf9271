//! What a step prints: passed on in chunks, clipped beyond a limit as BuildKit does, its end remembered.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

/// Where a step's output goes, and how much of it.
#[derive(Debug)]
pub struct StepIo {
    /// Takes the chunks. When it is full the step waits; when nobody listens any more the output is dropped.
    pub output: mpsc::Sender<Chunk>,
    /// How much of it.
    pub limits: OutputLimits,
}

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// On which stream.
    pub stream: Stream,
    /// The bytes, not cut at line ends.
    pub bytes: Bytes,
}

/// Standard output or error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Limits of one stream's log. What exceeds them is not kept; the step goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputLimits {
    /// Bytes in all.
    pub total: u64,
    /// Bytes per second of the step's life.
    pub per_second: u64,
}

impl Default for OutputLimits {
    /// BuildKit's: 2 MiB, 200 KiB/s.
    fn default() -> Self {
        Self {
            total: 2 << 20,
            per_second: 200 << 10,
        }
    }
}

/// Decides what of a stream is passed on. BuildKit's rule (`util/progress/logs`): after each begun second the stream may
/// have carried so many bytes, counting those that were clipped.
#[derive(Debug)]
pub(super) struct Clip {
    limits: OutputLimits,
    seen: u64,
    clipping: bool,
}

impl Clip {
    pub(super) fn new(limits: OutputLimits) -> Self {
        Self {
            limits,
            seen: 0,
            clipping: false,
        }
    }

    /// What to pass on of `bytes`, which arrived `elapsed` after the step began.
    pub(super) fn pass(&mut self, bytes: &[u8], elapsed: Duration) -> Vec<u8> {
        let seconds = elapsed.as_secs() + 1;
        let by_speed = self.limits.per_second.saturating_mul(seconds);
        let most = by_speed.min(self.limits.total);
        let room = most.saturating_sub(self.seen);
        self.seen = self.seen.saturating_add(bytes.len() as u64);
        if room >= bytes.len() as u64 {
            self.clipping = false;
            return bytes.to_vec();
        }
        let mut passed = bytes[..room as usize].to_vec();
        if !self.clipping {
            let limit = if by_speed < self.limits.total {
                format!("{}/s", size(self.limits.per_second))
            } else {
                size(self.limits.total)
            };
            passed.extend_from_slice(
                format!("\n[output clipped, log limit {limit} reached]\n").as_bytes(),
            );
            self.clipping = true;
        }
        passed
    }
}

/// `2MiB`, `200KiB`, `1000B`.
fn size(bytes: u64) -> String {
    match bytes {
        _ if bytes >= 1 << 20 && bytes.is_multiple_of(1 << 20) => format!("{}MiB", bytes >> 20),
        _ if bytes >= 1 << 10 && bytes.is_multiple_of(1 << 10) => format!("{}KiB", bytes >> 10),
        _ => format!("{bytes}B"),
    }
}

/// The last bytes of the output.
#[derive(Debug, Default)]
pub(super) struct Tail(VecDeque<u8>);

impl Tail {
    const BYTES: usize = 8 << 10;

    pub(super) fn push(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(Self::BYTES)..];
        let excess = (self.0.len() + bytes.len()).saturating_sub(Self::BYTES);
        self.0.drain(..excess);
        self.0.extend(bytes);
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn output_is_clipped_at_the_total_once() {
        let mut clip = Clip::new(OutputLimits {
            total: 5,
            per_second: 1000,
        });
        assert_eq!(text(clip.pass(b"abc", Duration::ZERO)), "abc");
        assert_eq!(
            text(clip.pass(b"defg", Duration::ZERO)),
            "de\n[output clipped, log limit 5B reached]\n"
        );
        assert_eq!(text(clip.pass(b"hij", Duration::from_secs(100))), "");
    }

    #[test]
    fn a_fast_stream_is_clipped_until_time_has_caught_up() {
        let mut clip = Clip::new(OutputLimits {
            total: 2 << 20,
            per_second: 1024,
        });
        assert_eq!(clip.pass(&[b'x'; 1024], Duration::ZERO).len(), 1024);
        let clipped = text(clip.pass(b"y", Duration::from_millis(900)));
        assert_eq!(clipped, "\n[output clipped, log limit 1KiB/s reached]\n");
        assert_eq!(text(clip.pass(b"z", Duration::from_millis(1100))), "z");
    }

    #[test]
    fn the_tail_keeps_the_end() {
        let mut tail = Tail::default();
        tail.push(&[b'a'; 9000]);
        tail.push(b"end");
        let bytes = tail.into_bytes();
        assert_eq!(bytes.len(), Tail::BYTES);
        assert!(bytes.ends_with(b"aend"));
    }
}
