//! The log of one step: its beginning and its end are kept, the middle is what gives way.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

/// Pieces of one stream that come this close together share a time.
const TOGETHER: Duration = Duration::from_millis(10);
/// A piece doesn't grow beyond this.
const PIECE: usize = 8 * 1024;
/// The first bytes of a step are kept whatever the build's other steps have printed.
const WORD: usize = 4 * 1024;
/// What a piece costs beside its bytes.
const OVERHEAD: usize = 64;

/// How many bytes of logs are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLimits {
    /// The first bytes of each step.
    pub head: usize,
    /// The last bytes of each step.
    pub tail: usize,
    /// All steps of a build together. Once reached, a step's new output displaces its own older output.
    pub build: usize,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self {
            head: 1 << 20,
            tail: 1 << 20,
            build: 64 << 20,
        }
    }
}

/// A piece of a step's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When it came.
    pub at: SystemTime,
    /// [`super::STDOUT`] or [`super::STDERR`].
    pub stream: i64,
    /// The bytes, as they came.
    pub data: Vec<u8>,
}

#[derive(Debug, Clone)]
pub(crate) struct Piece {
    pub(crate) version: u64,
    pub(crate) line: LogLine,
}

/// A step's log.
#[derive(Debug, Default)]
pub(crate) struct Log {
    head: Vec<Piece>,
    head_bytes: usize,
    tail: VecDeque<Piece>,
    tail_bytes: usize,
    /// Bytes that were dropped between head and tail, and the newest version among them.
    dropped: u64,
    dropped_version: u64,
}

impl Log {
    /// Adds output. `delivered` is the newest version that a subscriber has seen: pieces up to it are not changed.
    /// `others` is what the build's other logs hold. Returns how the bytes held have changed.
    pub(crate) fn add(
        &mut self,
        piece: Piece,
        delivered: u64,
        others: usize,
        limits: &LogLimits,
    ) -> isize {
        let before = self.bytes();
        self.insert(piece, delivered, others, limits);
        let room = limits
            .tail
            .min(limits.build.saturating_sub(others + self.head_bytes));
        while self.tail_bytes > room {
            let Some(oldest) = self.tail.pop_front() else {
                break;
            };
            self.tail_bytes -= oldest.line.data.len() + OVERHEAD;
            self.dropped += oldest.line.data.len() as u64;
            self.dropped_version = oldest.version;
        }
        self.bytes() as isize - before as isize
    }

    fn insert(&mut self, piece: Piece, delivered: u64, others: usize, limits: &LogLimits) {
        let cost = piece.line.data.len() + OVERHEAD;
        let head = self.head_bytes + cost;
        let allowed = head <= WORD || head <= limits.head && others + head <= limits.build;
        let to_head = self.tail.is_empty() && self.dropped == 0 && allowed;
        let last = if to_head {
            self.head.last_mut()
        } else {
            self.tail.back_mut()
        };
        let merge =
            last.filter(|last| last.version > delivered && belongs_to(&last.line, &piece.line));
        let cost = match merge {
            Some(last) => {
                last.version = piece.version;
                last.line.data.extend_from_slice(&piece.line.data);
                piece.line.data.len()
            }
            None if to_head => {
                self.head.push(piece);
                cost
            }
            None => {
                self.tail.push_back(piece);
                cost
            }
        };
        if to_head {
            self.head_bytes += cost;
        } else {
            self.tail_bytes += cost;
        }
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.head_bytes + self.tail_bytes
    }

    /// Pieces newer than `seen`, oldest first, and with them the notice of what is missing between.
    pub(crate) fn since(&self, seen: u64) -> impl Iterator<Item = Piece> + '_ {
        let head = self
            .head
            .iter()
            .filter(move |piece| piece.version > seen)
            .cloned();
        let first = self.tail.front().filter(|_| self.dropped_version > seen);
        let notice = first.map(|first| Piece {
            version: self.dropped_version,
            line: LogLine {
                data: format!("[output clipped, {} bytes left out]\n", self.dropped).into_bytes(),
                ..first.line.clone()
            },
        });
        let tail = self
            .tail
            .iter()
            .filter(move |piece| piece.version > seen)
            .cloned();
        head.chain(notice).chain(tail)
    }
}

fn belongs_to(last: &LogLine, next: &LogLine) -> bool {
    let close = next
        .at
        .duration_since(last.at)
        .is_ok_and(|gap| gap <= TOGETHER);
    close && last.stream == next.stream && last.data.len() + next.data.len() <= PIECE
}
