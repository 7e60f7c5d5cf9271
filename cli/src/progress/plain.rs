//! One line for each event, as BuildKit's plain progress: `#5 [linux/amd64 2/3] RUN …`, `#5 0.123 output`, `#5 DONE 0.3s`.
//!
//! Steps that run at once take turns: the shown one keeps its turn while it writes, until another has waited long enough.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use bollard_buildkit_proto::moby::buildkit::v1::StatusResponse;

use super::{Board, Display};
use crate::buildkit::Observer;

/// A step that writes nothing for this long loses its turn to one that has something to say.
const IDLE: Duration = Duration::from_secs(1);
/// A step waits for its turn no longer than this,
const MAX_WAIT: Duration = Duration::from_secs(5);
/// or until it has this many lines.
const MAX_HELD: usize = 2000;

/// The display.
pub struct Plain<W> {
    out: W,
    board: Board,
    shown: Option<usize>,
    shown_at: Instant,
    held: BTreeMap<usize, Held>,
    first: bool,
}

struct Held {
    since: Instant,
    lines: Vec<String>,
}

impl<W: Write> Plain<W> {
    /// Writes to `out`; write errors are passed over.
    pub fn new(out: W) -> Self {
        let shown_at = Instant::now();
        Self {
            out,
            board: Board::default(),
            shown: None,
            shown_at,
            held: BTreeMap::new(),
            first: true,
        }
    }

    fn take(&mut self, status: &StatusResponse, now: Instant) {
        for line in self.board.update(status) {
            let held = self.held.entry(line.step).or_insert_with(|| Held {
                since: now,
                lines: Vec::new(),
            });
            held.lines.extend(line.text);
        }
        self.flush(now);
    }

    /// Writes what has its turn.
    fn flush(&mut self, now: Instant) {
        if let Some(shown) = self.shown {
            self.show(shown, now);
        }
        let over: Vec<usize> = self
            .held
            .keys()
            .copied()
            .filter(|step| self.is_over(*step))
            .collect();
        for step in over {
            self.show(step, now);
        }
        let next = match self.shown {
            None => self.held.keys().next().copied(),
            Some(_) => {
                let idle = now.duration_since(self.shown_at) >= IDLE;
                let due = |held: &Held| {
                    held.lines.len() > MAX_HELD
                        || now.duration_since(held.since)
                            >= if idle { Duration::ZERO } else { MAX_WAIT }
                };
                self.held
                    .iter()
                    .filter(|(_, held)| due(held))
                    .min_by_key(|(_, held)| held.since)
                    .map(|(step, _)| *step)
            }
        };
        if let Some(next) = next {
            self.show(next, now);
        }
        let _ = self.out.flush();
    }

    fn show(&mut self, step: usize, now: Instant) {
        let Some(held) = self.held.remove(&step) else {
            return;
        };
        let number = step + 1;
        if self.shown != Some(step) {
            if let Some(old) = self.shown {
                let _ = writeln!(self.out, "#{} ...", old + 1);
            }
            if !std::mem::take(&mut self.first) {
                let _ = writeln!(self.out);
            }
            let _ = writeln!(self.out, "#{number} {}", self.board.steps()[step].title());
        }
        for line in held.lines {
            let _ = writeln!(self.out, "#{number} {line}");
        }
        self.shown = (!self.is_over(step)).then_some(step);
        self.shown_at = now;
    }

    fn is_over(&self, step: usize) -> bool {
        self.board.steps()[step].completed.is_some()
    }
}

impl<W: Write + Send> Observer for Plain<W> {
    fn status(&mut self, status: &StatusResponse) {
        self.take(status, Instant::now());
    }

    fn tick(&mut self) {
        self.flush(Instant::now());
    }
}

impl<W: Write + Send> Display for Plain<W> {
    fn finish(&mut self) {
        let now = Instant::now();
        for step in self.held.keys().copied().collect::<Vec<_>>() {
            self.show(step, now);
        }
        let _ = self.out.flush();
    }

    fn board(&self) -> Option<&Board> {
        Some(&self.board)
    }
}

#[cfg(test)]
mod tests;
