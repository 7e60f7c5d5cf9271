//! A step's state, and its form on the wire.

use std::time::{SystemTime, UNIX_EPOCH};

use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1::{Vertex, VertexStatus};
use buildyard_model::Digest;

use super::{StatusUpdate, VertexInfo};

/// A step.
#[derive(Debug, Clone, PartialEq)]
pub struct VertexRecord {
    /// Its digest.
    pub step: Digest,
    /// As it was declared.
    pub info: VertexInfo,
    /// When it began; `None`: not yet, and clients don't show it.
    pub started: Option<SystemTime>,
    /// When it ended.
    pub completed: Option<SystemTime>,
    /// Its result was there already.
    pub cached: bool,
    /// Why it failed; empty: it didn't.
    pub error: String,
    /// Its counters.
    pub statuses: Vec<StatusRecord>,
}

/// A counter of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusRecord {
    /// Its last state.
    pub update: StatusUpdate,
    /// When that was.
    pub at: SystemTime,
}

impl VertexRecord {
    /// The message that clients get.
    pub fn to_proto(&self) -> Vertex {
        Vertex {
            digest: self.step.to_string(),
            inputs: self.info.inputs.iter().map(Digest::to_string).collect(),
            name: self.info.name.clone(),
            cached: self.cached,
            started: self.started.map(timestamp),
            completed: self.completed.map(timestamp),
            error: self.error.clone(),
            progress_group: self.info.group.clone(),
        }
    }
}

impl StatusRecord {
    /// The message that clients get.
    pub fn to_proto(&self, step: Digest) -> VertexStatus {
        VertexStatus {
            id: self.update.id.clone(),
            vertex: step.to_string(),
            name: self.update.name.clone(),
            current: self.update.current,
            total: self.update.total,
            timestamp: Some(timestamp(self.at)),
            started: self.update.started.map(timestamp),
            completed: self.update.completed.map(timestamp),
        }
    }
}

/// A time as protobuf has it. Times before 1970 don't occur and become 1970.
pub(crate) fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or_default(),
    }
}
