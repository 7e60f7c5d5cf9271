//! A view that redraws itself: finished steps scroll by as one line each, running ones stay below with their last output.

use std::time::Instant;

use bollard_buildkit_proto::moby::buildkit::v1::StatusResponse;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::format::{fit, seconds};
use super::{Board, Display, Step};
use crate::buildkit::Observer;

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
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
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
        let (columns, rows) = window();
        for (index, step) in self.board.steps().iter().enumerate() {
            if step.completed.is_some() && !self.scrolled[index] {
                self.scrolled[index] = true;
                self.bar.println(finished_line(step, columns));
            }
        }
        let done = self.scrolled.iter().filter(|done| **done).count();
        let elapsed = self.begun.elapsed().as_secs_f64();
        let mut lines = vec![fit(
            &format!("[+] Building {elapsed:.1}s ({done}/{})", self.board.known()),
            columns,
        )];
        for (index, step) in self
            .board
            .steps()
            .iter()
            .enumerate()
            .filter(|(_, step)| step.completed.is_none())
        {
            let mut part = running_lines(step, self.seen[index], columns);
            if lines.len() + part.len() >= rows {
                part.truncate(1);
            }
            if lines.len() + part.len() < rows {
                lines.extend(part);
            }
        }
        self.bar.set_message(lines.join("\n"));
        self.bar.tick();
    }
}

impl Default for Tty {
    fn default() -> Self {
        Self::new()
    }
}

fn finished_line(step: &Step, columns: usize) -> String {
    let mark = if step.canceled() {
        "CANCELED"
    } else if !step.error.is_empty() {
        "ERROR"
    } else if step.cached {
        "CACHED"
    } else {
        return beside(
            &format!(" => {}", step.title()),
            &seconds(step.duration().unwrap_or(0)),
            columns,
        );
    };
    beside(
        &format!(" => {mark} {}", step.title()),
        &seconds(step.duration().unwrap_or(0)),
        columns,
    )
}

fn running_lines(step: &Step, since: Instant, columns: usize) -> Vec<String> {
    let elapsed = format!("{:.1}s", since.elapsed().as_secs_f64());
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

/// `left` and `right` at the two ends of a line.
fn beside(left: &str, right: &str, columns: usize) -> String {
    let room = columns.saturating_sub(right.len() + 2);
    let left = fit(left, room);
    let used = left
        .chars()
        .map(|c| if (c as u32) < 0x1100 { 1 } else { 2 })
        .sum::<usize>();
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
        self.board.update(status);
        self.seen
            .resize_with(self.board.steps().len(), Instant::now);
        self.scrolled.resize(self.board.steps().len(), false);
    }

    fn tick(&mut self) {
        self.draw();
    }
}

impl Display for Tty {
    fn finish(&mut self) {
        self.draw();
        self.bar.finish_and_clear();
        let done = self.scrolled.iter().filter(|done| **done).count();
        eprintln!(
            "[+] Building {:.1}s ({done}/{}) finished",
            self.begun.elapsed().as_secs_f64(),
            self.board.known()
        );
    }

    fn board(&self) -> Option<&Board> {
        Some(&self.board)
    }
}
