//! The state of a build's steps, and what of it is newer than a subscriber has seen. Pure.

use std::collections::HashMap;
use std::time::SystemTime;

use bollard_buildkit_proto::moby::buildkit::v1::{StatusResponse, VertexLog, VertexWarning};
use buildyard_model::Digest;
use prost::Message;

use super::log::{Log, LogLimits, LogLine, Piece};
use super::record::{StatusRecord, VertexRecord, timestamp};
use super::{StatusUpdate, VertexInfo};

/// Counters of one step.
const MOST_STATUSES: usize = 1000;
/// Warnings of one build.
const MOST_WARNINGS: usize = 500;
/// Bytes of logs in one look; what is left follows at the next.
const LOOK: usize = 4 << 20;
/// Bytes of one message; clients take 16 MiB.
const MESSAGE: usize = 1 << 20;

/// What a subscriber has seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    state: u64,
    logs: u64,
}

#[derive(Debug)]
struct Step {
    version: u64,
    record: VertexRecord,
    status_versions: Vec<u64>,
    log: Log,
}

#[derive(Debug)]
pub(crate) struct State {
    limits: LogLimits,
    version: u64,
    steps: Vec<Step>,
    by_digest: HashMap<Digest, usize>,
    warnings: Vec<(u64, VertexWarning)>,
    log_bytes: usize,
    delivered: u64,
    finished: bool,
}

impl State {
    pub(crate) fn new(limits: LogLimits) -> Self {
        Self {
            limits,
            version: 0,
            steps: Vec::new(),
            by_digest: HashMap::new(),
            warnings: Vec::new(),
            log_bytes: 0,
            delivered: 0,
            finished: false,
        }
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn finished(&self) -> bool {
        self.finished
    }

    /// Changes a step, declaring it without a name if it isn't known.
    pub(crate) fn vertex(&mut self, digest: Digest, change: impl FnOnce(&mut VertexRecord)) {
        let version = self.next();
        let step = self.step(digest);
        step.version = version;
        change(&mut step.record);
    }

    pub(crate) fn complete(&mut self, digest: Digest, error: &str, at: SystemTime) {
        self.vertex(digest, |vertex| {
            vertex.started = vertex.started.or(Some(at));
            vertex.completed = Some(at);
            error.clone_into(&mut vertex.error);
        });
    }

    pub(crate) fn status(&mut self, digest: Digest, update: StatusUpdate, at: SystemTime) {
        let version = self.next();
        let step = self.step(digest);
        let known = step
            .record
            .statuses
            .iter()
            .position(|status| status.update.id == update.id);
        match known {
            Some(index) => {
                let status = &mut step.record.statuses[index];
                let started = status.update.started.or(update.started);
                *status = StatusRecord {
                    update: StatusUpdate { started, ..update },
                    at,
                };
                step.status_versions[index] = version;
            }
            None if step.record.statuses.len() < MOST_STATUSES => {
                step.record.statuses.push(StatusRecord { update, at });
                step.status_versions.push(version);
            }
            None => {}
        }
    }

    pub(crate) fn log(&mut self, digest: Digest, stream: i64, data: &[u8], at: SystemTime) {
        let version = self.next();
        let (limits, delivered, total) = (self.limits, self.delivered, self.log_bytes);
        let log = &mut self.step(digest).log;
        let others = total.saturating_sub(log.bytes());
        let mut grown = 0;
        for part in data.chunks(64 * 1024) {
            let line = LogLine {
                at,
                stream,
                data: part.to_vec(),
            };
            grown += log.add(Piece { version, line }, delivered, others, &limits);
        }
        self.log_bytes = self.log_bytes.saturating_add_signed(grown);
    }

    pub(crate) fn warn(&mut self, warning: VertexWarning) {
        let version = self.next();
        if self.warnings.len() < MOST_WARNINGS {
            self.warnings.push((version, warning));
        }
    }

    /// Ends the build. BuildKit's text makes clients show the open steps as cancelled.
    pub(crate) fn finish(&mut self, at: SystemTime) {
        let open =
            |step: &&mut Step| step.record.started.is_some() && step.record.completed.is_none();
        let version = self.next();
        for step in self.steps.iter_mut().filter(open) {
            step.version = version;
            step.record.completed = Some(at);
            "context canceled".clone_into(&mut step.record.error);
        }
        self.finished = true;
    }

    pub(crate) fn records(&self) -> Vec<VertexRecord> {
        self.steps.iter().map(|step| step.record.clone()).collect()
    }

    pub(crate) fn log_of(&self, digest: Digest) -> Vec<LogLine> {
        let step = self
            .by_digest
            .get(&digest)
            .and_then(|index| self.steps.get(*index));
        step.map(|step| step.log.since(0).map(|piece| piece.line).collect())
            .unwrap_or_default()
    }

    pub(crate) fn warnings(&self) -> Vec<VertexWarning> {
        self.warnings
            .iter()
            .map(|(_, warning)| warning.clone())
            .collect()
    }

    /// What is newer than `seen`, and moves `seen` on. Steps come before their logs. Empty: nothing is newer.
    pub(crate) fn since(&mut self, seen: &mut Seen) -> Vec<StatusResponse> {
        let mut messages = Messages::default();
        for step in &self.steps {
            if step.version > seen.state {
                messages.add(step.record.to_proto(), |message| &mut message.vertexes);
            }
            for (status, version) in step.record.statuses.iter().zip(&step.status_versions) {
                if *version > seen.state {
                    messages.add(status.to_proto(step.record.step), |message| {
                        &mut message.statuses
                    });
                }
            }
        }
        for (_, warning) in self
            .warnings
            .iter()
            .filter(|(version, _)| *version > seen.state)
        {
            messages.add(warning.clone(), |message| &mut message.warnings);
        }
        seen.state = self.version;
        seen.logs = self.logs_since(seen.logs, &mut messages);
        self.delivered = self.delivered.max(seen.logs);
        messages.done
    }

    /// Adds logs in the order in which they came, up to [`LOOK`] bytes. Returns the last version added.
    fn logs_since(&self, seen: u64, messages: &mut Messages) -> u64 {
        let mut pieces: Vec<(Digest, Piece)> = Vec::new();
        for step in &self.steps {
            pieces.extend(step.log.since(seen).map(|piece| (step.record.step, piece)));
        }
        pieces.sort_by_key(|(_, piece)| piece.version);
        let (mut bytes, mut last) = (0, seen);
        for (step, piece) in pieces {
            if bytes >= LOOK && piece.version > last {
                return last;
            }
            bytes += piece.line.data.len();
            last = piece.version;
            let log = VertexLog {
                vertex: step.to_string(),
                timestamp: Some(timestamp(piece.line.at)),
                stream: piece.line.stream,
                msg: piece.line.data,
            };
            messages.add(log, |message| &mut message.logs);
        }
        self.version
    }

    fn next(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    fn step(&mut self, digest: Digest) -> &mut Step {
        let index = *self.by_digest.entry(digest).or_insert_with(|| {
            self.steps.push(Step::new(digest));
            self.steps.len() - 1
        });
        &mut self.steps[index]
    }
}

impl Step {
    fn new(step: Digest) -> Self {
        let record = VertexRecord {
            step,
            info: VertexInfo::default(),
            started: None,
            completed: None,
            cached: false,
            error: String::new(),
            statuses: Vec::new(),
        };
        Self {
            version: 0,
            record,
            status_versions: Vec::new(),
            log: Log::default(),
        }
    }
}

/// Messages of bounded size.
#[derive(Default)]
struct Messages {
    done: Vec<StatusResponse>,
    bytes: usize,
}

impl Messages {
    fn add<T: Message>(&mut self, part: T, list: impl FnOnce(&mut StatusResponse) -> &mut Vec<T>) {
        let size = part.encoded_len() + 8;
        if self.done.is_empty() || self.bytes + size > MESSAGE {
            self.done.push(StatusResponse::default());
            self.bytes = 0;
        }
        self.bytes += size;
        if let Some(message) = self.done.last_mut() {
            list(message).push(part);
        }
    }
}
