//! A view that redraws itself: finished steps scroll by as one line each, running ones stay below with their last output.

use std::time::{Duration, Instant};

use bollard_buildkit_proto::moby::buildkit::v1::StatusResponse;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::format::{fit, seconds, width_of};
use super::{Board, Display, Step};
use crate::buildkit::Observer;

#[cfg(test)]
mod tests;

/// How many lines of output a running step shows.
const TAIL: usize = 6;

/// The display.
pub struct Tty {
    bar: ProgressBar,
    board: Board,
    begun: Instant,
    /// When this side learned of each step: the farm's clock may differ.
    seen: Vec<Instant>,
    scrolled: Vec<bool>,
}

impl Tty {
    /// Draws on standard error.
    pub fn new() -> Self {
        Self::on(ProgressDrawTarget::stderr())
    }

    fn on(target: ProgressDrawTarget) -> Self {
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("{msg}") {
            bar.set_style(style);
        }
        Self {
            bar,
            board: Board::default(),
            begun: Instant::now(),
            seen: Vec::new(),
            scrolled: Vec::new(),
        }
    }

    fn draw(&mut self) {
        let frame = self.frame(window(), Instant::now());
        for line in frame.finished {
            self.bar.println(line);
        }
        self.bar.set_message(frame.running.join("\n"));
        self.bar.tick();
    }

    /// What a terminal of so many columns and rows shows now; each finished step is in one frame only.
    fn frame(&mut self, (columns, rows): (usize, usize), now: Instant) -> Frame {
        let mut finished = Vec::new();
        for (step, scrolled) in self.board.steps().iter().zip(&mut self.scrolled) {
            if step.completed.is_some() && !*scrolled {
                *scrolled = true;
                finished.push(finished_line(step, columns));
            }
        }
        let elapsed = now.duration_since(self.begun).as_secs_f64();
        let (done, known) = (self.done(), self.board.known());
        let title = format!("[+] Building {elapsed:.1}s ({done}/{known})");
        let mut running = vec![fit(&title, columns)];
        let steps = self.board.steps().iter().zip(&self.seen);
        for (step, seen) in steps.filter(|(step, _)| step.completed.is_none()) {
            let mut part = running_lines(step, now.duration_since(*seen), columns);
            if running.len() + part.len() >= rows {
                part.truncate(1);
            }
            if running.len() + part.len() < rows {
                running.extend(part);
            }
        }
        Frame { finished, running }
    }

    /// Takes a message that came at `now`.
    fn take(&mut self, status: &StatusResponse, now: Instant) {
        self.board.update(status);
        let count = self.board.steps().len();
        self.seen.resize(count, now);
        self.scrolled.resize(count, false);
    }

    fn done(&self) -> usize {
        self.scrolled.iter().filter(|done| **done).count()
    }
}

/// Lines for the terminal.
struct Frame {
    /// They scroll by and stay.
    finished: Vec<String>,
    /// They are replaced by the next frame's.
    running: Vec<String>,
}

impl Default for Tty {
    fn default() -> Self {
        Self::new()
    }
}

fn finished_line(step: &Step, columns: usize) -> String {
    let mark = if step.canceled() {
        "CANCELED "
    } else if !step.error.is_empty() {
        "ERROR "
    } else if step.cached {
        "CACHED "
    } else {
        ""
    };
    let time = seconds(step.duration().unwrap_or(0));
    beside(
        &format!(" => {mark}{}", step.title()),
        &how_long(step, time),
        columns,
    )
}

fn running_lines(step: &Step, elapsed: Duration, columns: usize) -> Vec<String> {
    let elapsed = how_long(step, format!("{:.1}s", elapsed.as_secs_f64()));
    let mut lines = vec![beside(&format!(" => {}", step.title()), &elapsed, columns)];
    let indent = |text: &str| fit(&format!(" => => {text}"), columns);
    lines.extend(
        step.transfers
            .iter()
            .rev()
            .take(TAIL)
            .rev()
            .map(|(_, text)| indent(text)),
    );
    let from = step.tail.len().saturating_sub(TAIL);
    lines.extend(
        step.tail
            .iter()
            .skip(from)
            .map(|text| indent(&format!("# {text}"))),
    );
    lines
}

/// The time, and in front of it whether that is an emulator's: there no narrow terminal cuts it off.
fn how_long(step: &Step, time: String) -> String {
    if step.emulated {
        format!("emulated {time}")
    } else {
        time
    }
}

/// `left` and `right` at the two ends of a line.
fn beside(left: &str, right: &str, columns: usize) -> String {
    let room = columns.saturating_sub(right.len() + 2);
    let left = fit(left, room);
    let used: usize = left.chars().map(width_of).sum();
    format!(
        "{left}{}{right}",
        " ".repeat(columns.saturating_sub(used + right.len() + 1))
    )
}

/// Columns and rows of the terminal.
fn window() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(std::io::stderr()) {
        Ok(size) if size.ws_col > 20 && size.ws_row > 4 => {
            (size.ws_col.into(), usize::from(size.ws_row) - 1)
        }
        _ => (80, 24),
    }
}

impl Observer for Tty {
    fn status(&mut self, status: &StatusResponse) {
        self.take(status, Instant::now());
    }

    fn tick(&mut self) {
        self.draw();
    }
}

impl Display for Tty {
    fn finish(&mut self) {
        self.draw();
        self.bar.finish_and_clear();
        eprintln!(
            "[+] Building {:.1}s ({}/{}) finished",
            self.begun.elapsed().as_secs_f64(),
            self.done(),
            self.board.known()
        );
    }

    fn board(&self) -> Option<&Board> {
        Some(&self.board)
    }
}
