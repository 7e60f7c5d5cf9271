//! What is known about a build's steps, built up from BuildKit's status messages. Pure: no clock, no output.

use std::collections::{HashMap, VecDeque};

use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1::{
    StatusResponse, Vertex, VertexLog, VertexStatus, VertexWarning,
};

use super::format::{bytes, log_time, seconds};

/// How many lines of a step's output are kept for the terminal view and for the end of a failed build.
const KEPT_LINES: usize = 40;
/// An output line longer than this is cut into several.
const MAX_LINE: usize = 64 << 10;
/// Progress of a transfer is said again after this much of it, or this much time.
const PROGRESS_PART: f64 = 0.05;
const PROGRESS_NANOS: i64 = 5_000_000_000;

/// The steps in the order in which they began.
#[derive(Debug, Default)]
pub struct Board {
    steps: Vec<Step>,
    by_digest: HashMap<String, usize>,
    waiting: HashMap<String, String>,
    warnings: Vec<VertexWarning>,
}

/// One step that has begun.
#[derive(Debug, Default)]
pub struct Step {
    /// BuildKit's vertex digest.
    pub digest: String,
    /// The name, with where it ran.
    pub name: String,
    /// When it began, in nanoseconds.
    pub started: Option<i64>,
    /// When it ended, in nanoseconds.
    pub completed: Option<i64>,
    /// Whether the cache answered.
    pub cached: bool,
    /// Whether an emulator runs it.
    pub emulated: bool,
    /// Why it failed, or empty.
    pub error: String,
    /// The last lines of its output, each with its time.
    pub tail: VecDeque<String>,
    /// The newest message of each transfer.
    pub transfers: Vec<(String, String)>,
    partial: Vec<u8>,
    said: HashMap<String, (i64, i64)>,
}

/// Something to say about a step: `step` is its index, its number on the screen is one more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Which step.
    pub step: usize,
    /// The text; none says only that the step has begun.
    pub text: Option<String>,
}

impl Board {
    /// Takes a message and returns what is new, in order: beginnings, transfers and output, ends.
    pub fn update(&mut self, status: &StatusResponse) -> Vec<Line> {
        let mut lines = Vec::new();
        let ended: Vec<usize> = status
            .vertexes
            .iter()
            .filter_map(|vertex| self.vertex(vertex, &mut lines))
            .collect();
        for transfer in &status.statuses {
            self.transfer(transfer, &mut lines);
        }
        for log in &status.logs {
            self.log(log, &mut lines);
        }
        for step in ended {
            let text = self.steps[step].end_text();
            if let Some(rest) = self.steps[step].take_partial() {
                lines.push(Line {
                    step,
                    text: Some(rest),
                });
            }
            lines.push(Line {
                step,
                text: Some(text),
            });
        }
        self.warnings.extend(status.warnings.iter().cloned());
        lines
    }

    /// The steps that have begun.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The step of a digest.
    pub fn by_digest(&self, digest: &str) -> Option<&Step> {
        self.by_digest.get(digest).map(|index| &self.steps[*index])
    }

    /// How many steps are known, begun or not.
    pub fn known(&self) -> usize {
        self.steps.len() + self.waiting.len()
    }

    /// The warnings so far.
    pub fn warnings(&self) -> &[VertexWarning] {
        &self.warnings
    }

    /// Takes a vertex; returns its index if it ended with this message.
    fn vertex(&mut self, vertex: &Vertex, lines: &mut Vec<Line>) -> Option<usize> {
        let Some(index) = self.by_digest.get(&vertex.digest).copied() else {
            if vertex.started.is_none() && vertex.completed.is_none() {
                self.waiting
                    .insert(vertex.digest.clone(), vertex.name.clone());
                return None;
            }
            return self.begin(vertex, lines);
        };
        let step = &mut self.steps[index];
        let was_over = step.completed.is_some();
        step.take(vertex);
        (step.completed.is_some() && !was_over).then_some(index)
    }

    fn begin(&mut self, vertex: &Vertex, lines: &mut Vec<Line>) -> Option<usize> {
        self.waiting.remove(&vertex.digest);
        let index = self.steps.len();
        let mut step = Step {
            digest: vertex.digest.clone(),
            ..Step::default()
        };
        step.take(vertex);
        let over = step.completed.is_some();
        self.steps.push(step);
        self.by_digest.insert(vertex.digest.clone(), index);
        lines.push(Line {
            step: index,
            text: None,
        });
        over.then_some(index)
    }

    fn transfer(&mut self, status: &VertexStatus, lines: &mut Vec<Line>) {
        let Some(&index) = self.by_digest.get(&status.vertex) else {
            return;
        };
        let step = &mut self.steps[index];
        step.emulated |= says_emulated(&status.id);
        let text = transfer_text(status);
        match step.transfers.iter_mut().find(|(id, _)| *id == status.id) {
            Some((_, old)) => old.clone_from(&text),
            None => step.transfers.push((status.id.clone(), text.clone())),
        }
        if status.completed.is_some() {
            step.transfers.retain(|(id, _)| *id != status.id);
        }
        let at = status.timestamp.as_ref().map_or(0, nanos);
        if let Some((current, said_at)) = step.said.get(&status.id)
            && status.completed.is_none()
        {
            let part = if status.total > 0 {
                (status.current - current) as f64 / status.total as f64
            } else {
                0.0
            };
            if part < PROGRESS_PART && at - said_at < PROGRESS_NANOS {
                return;
            }
        }
        step.said.insert(status.id.clone(), (status.current, at));
        lines.push(Line {
            step: index,
            text: Some(text),
        });
    }

    fn log(&mut self, log: &VertexLog, lines: &mut Vec<Line>) {
        let Some(&index) = self.by_digest.get(&log.vertex) else {
            return;
        };
        let step = &mut self.steps[index];
        let since = match (&log.timestamp, step.started) {
            (Some(at), Some(started)) => nanos(at).saturating_sub(started),
            _ => 0,
        };
        for part in log.msg.split_inclusive(|byte| *byte == b'\n') {
            if step.partial.is_empty() {
                step.partial.extend_from_slice(log_time(since).as_bytes());
            }
            step.partial
                .extend_from_slice(part.strip_suffix(b"\n").unwrap_or(part));
            if part.ends_with(b"\n") || step.partial.len() > MAX_LINE {
                let line = step.take_partial();
                lines.extend(line.map(|text| Line {
                    step: index,
                    text: Some(text),
                }));
            }
        }
    }
}

impl Step {
    fn take(&mut self, vertex: &Vertex) {
        if !vertex.name.is_empty() {
            self.name.clone_from(&vertex.name);
        }
        self.started = vertex.started.as_ref().map(nanos).or(self.started);
        self.completed = vertex.completed.as_ref().map(nanos).or(self.completed);
        self.cached |= vertex.cached;
        if !vertex.error.is_empty() {
            self.error.clone_from(&vertex.error);
        }
    }

    /// The first line of the name: heredocs put whole scripts there.
    pub fn title(&self) -> &str {
        self.name.lines().next().unwrap_or_default()
    }

    /// How long it ran, in nanoseconds; none while it runs.
    pub fn duration(&self) -> Option<i64> {
        Some(self.completed?.saturating_sub(self.started?))
    }

    /// Whether it was stopped, not failed.
    pub fn canceled(&self) -> bool {
        self.error.ends_with("context canceled") || self.error.ends_with("context cancelled")
    }

    fn end_text(&self) -> String {
        if self.canceled() {
            "CANCELED".into()
        } else if !self.error.is_empty() {
            format!("ERROR: {}", self.error)
        } else if self.cached {
            "CACHED".into()
        } else {
            self.duration()
                .map_or_else(|| "DONE".into(), |nanos| format!("DONE {}", seconds(nanos)))
        }
    }

    fn take_partial(&mut self) -> Option<String> {
        if self.partial.is_empty() {
            return None;
        }
        let bytes = std::mem::take(&mut self.partial);
        let line = String::from_utf8_lossy(&bytes)
            .trim_end_matches('\r')
            .to_owned();
        if self.tail.len() == KEPT_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(line.clone());
        Some(line)
    }
}

/// Whether a message tells where a step runs, as the farm words it, and that it is emulated there.
fn says_emulated(id: &str) -> bool {
    id.starts_with("on ") && id.contains(", emulated by ")
}

fn transfer_text(status: &VertexStatus) -> String {
    let mut text = status.id.clone();
    if status.total != 0 {
        text += &format!(" {} / {}", bytes(status.current), bytes(status.total));
    } else if status.current != 0 {
        text += &format!(" {}", bytes(status.current));
    }
    let end = status
        .completed
        .as_ref()
        .or(status.timestamp.as_ref())
        .map(nanos);
    if let (Some(started), Some(end)) = (status.started.as_ref().map(nanos), end)
        && end.saturating_sub(started) > 10_000_000
    {
        text += &format!(" {}", seconds(end - started));
    }
    if status.completed.is_some() {
        text += " done";
    }
    text
}

/// A time as nanoseconds since 1970.
pub(super) fn nanos(time: &Timestamp) -> i64 {
    time.seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(i64::from(time.nanos))
}
