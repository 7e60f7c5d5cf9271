//! A build's progress: its steps, their counters, logs and warnings.
//!
//! [`Progress`] is told by many tasks through cheap synchronous calls, and watched by any number of subscribers.
//! There are no queues of events: what is kept is the *state* of each step, every part of it stamped with the number
//! of its last change. A subscriber remembers the last number it has seen and gets what is newer, so the first look
//! replays the build so far, a slow subscriber sees fewer intermediate states, and neither costs memory nor makes the
//! build wait. Logs are bounded per step and per build ([`LogLimits`]).

mod log;
mod record;
mod state;
mod subscribe;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bollard_buildkit_proto::moby::buildkit::v1::VertexWarning;
use bollard_buildkit_proto::pb;
use buildyard_model::Digest;
pub use log::{LogLimits, LogLine};
pub use record::{StatusRecord, VertexRecord};
use state::State;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Standard output, in BuildKit's numbering.
pub const STDOUT: i64 = 1;
/// Standard error.
pub const STDERR: i64 = 2;

/// A step as it is declared.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct VertexInfo {
    /// The steps it needs, by digest.
    pub inputs: Vec<Digest>,
    /// `[linux/arm64 2/5] RUN make`, `[internal] load build definition from Dockerfile`.
    pub name: String,
    /// Steps with one group id show as one.
    pub group: Option<pb::ProgressGroup>,
}

/// A counter of a step: a layer that is pulled, a context that is transferred.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StatusUpdate {
    /// Which counter; shown, e.g. `transferring context:` or a layer's digest.
    pub id: String,
    /// The verb: `transferring`, `downloading`, `extracting`; often empty.
    pub name: String,
    /// Bytes (or things) done.
    pub current: i64,
    /// Bytes in all; 0: not known.
    pub total: i64,
    /// When the counter began; kept from the first update that has it.
    pub started: Option<SystemTime>,
    /// When it ended.
    pub completed: Option<SystemTime>,
}

/// A warning, as clients print it after the build.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Warning {
    /// The step it belongs to; clients drop warnings of steps they don't know.
    pub vertex: Option<Digest>,
    /// 1 for lint.
    pub level: i64,
    /// One line.
    pub short: String,
    /// More lines.
    pub detail: Vec<String>,
    /// Where it is explained.
    pub url: String,
    /// The source file with its content.
    pub info: Option<pb::SourceInfo>,
    /// The lines.
    pub ranges: Vec<pb::Range>,
}

/// The progress of one build.
#[derive(Debug)]
pub struct Progress {
    state: Mutex<State>,
    /// Number of the last change.
    changed: watch::Sender<u64>,
    /// The build is over: nobody needs to wait for more to come along.
    over: CancellationToken,
}

impl Default for Progress {
    fn default() -> Self {
        Self::new(LogLimits::default())
    }
}

impl Progress {
    /// An empty progress.
    pub fn new(limits: LogLimits) -> Self {
        Self {
            state: Mutex::new(State::new(limits)),
            changed: watch::Sender::new(0),
            over: CancellationToken::new(),
        }
    }

    /// Makes a step known. Declared again, it keeps its times and takes the new name, inputs and group.
    pub fn declare(&self, step: Digest, info: VertexInfo) {
        self.change(|state| state.vertex(step, |vertex| vertex.info = info));
    }

    /// The step has begun.
    pub fn started(&self, step: Digest, at: SystemTime) {
        self.change(|state| {
            state.vertex(step, |vertex| {
                vertex.started = Some(at);
                vertex.completed = None;
                vertex.error.clear();
            });
        });
    }

    /// The step's result was there already.
    pub fn cached(&self, step: Digest, at: SystemTime) {
        self.change(|state| {
            state.vertex(step, |vertex| {
                vertex.started = vertex.started.or(Some(at));
                vertex.completed = Some(at);
                vertex.cached = true;
            });
        });
    }

    /// The step has its result.
    pub fn completed(&self, step: Digest, at: SystemTime) {
        self.change(|state| state.complete(step, "", at));
    }

    /// The step has failed. The message is what clients show beside it.
    pub fn failed(&self, step: Digest, message: &str, at: SystemTime) {
        self.change(|state| state.complete(step, message, at));
    }

    /// A counter of the step has moved.
    pub fn status(&self, step: Digest, update: StatusUpdate, at: SystemTime) {
        self.change(|state| state.status(step, update, at));
    }

    /// The step has printed something: [`STDOUT`] or [`STDERR`]. Need not be whole lines.
    pub fn log(&self, step: Digest, stream: i64, data: &[u8], at: SystemTime) {
        if !data.is_empty() {
            self.change(|state| state.log(step, stream, data, at));
        }
    }

    /// There is something to warn of. Beyond 500 warnings of a build they are only counted.
    pub fn warn(&self, warning: Warning) {
        let message = VertexWarning {
            vertex: warning
                .vertex
                .map(|step| step.to_string())
                .unwrap_or_default(),
            level: warning.level,
            short: warning.short.into_bytes(),
            detail: warning.detail.into_iter().map(String::into_bytes).collect(),
            url: warning.url,
            info: warning.info,
            ranges: warning.ranges,
        };
        self.change(|state| state.warn(message));
    }

    /// The build is over: steps that are still going on are shown as given up, and subscribers end once they have
    /// seen everything. Later calls change nothing.
    pub fn finish(&self, at: SystemTime) {
        self.change(|state| state.finish(at));
        self.over.cancel();
    }

    /// Whether [`Progress::finish`] was called.
    pub fn is_finished(&self) -> bool {
        self.lock().finished()
    }

    /// Every step with its counters, in the order of their declaration, for the history.
    pub fn vertices(&self) -> Vec<VertexRecord> {
        self.lock().records()
    }

    /// The kept log of a step.
    pub fn log_of(&self, step: Digest) -> Vec<LogLine> {
        self.lock().log_of(step)
    }

    /// All kept warnings.
    pub fn warnings(&self) -> Vec<VertexWarning> {
        self.lock().warnings()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let version = {
            let mut state = self.lock();
            if state.finished() {
                return;
            }
            change(&mut state);
            state.version()
        };
        self.changed.send_if_modified(|last| {
            let newer = version > *last;
            *last = version.max(*last);
            newer
        });
    }
}

#[cfg(test)]
mod tests;
