//! BuildKit's status as lines of JSON, for other programs (`client.SolveStatus` of BuildKit's Go client).

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1::{
    StatusResponse, Vertex, VertexLog, VertexStatus, VertexWarning,
};
use serde_json::{Map, Value, json};

use super::board::nanos;
use super::{Board, Display};
use crate::buildkit::Observer;

/// The display.
pub struct RawJson<W> {
    out: W,
}

impl<W: Write> RawJson<W> {
    /// Writes to `out`; write errors are passed over.
    pub fn new(out: W) -> Self {
        Self { out }
    }
}

impl<W: Write + Send> Observer for RawJson<W> {
    fn status(&mut self, status: &StatusResponse) {
        let _ = writeln!(self.out, "{}", status_json(status));
        let _ = self.out.flush();
    }

    fn tick(&mut self) {}
}

impl<W: Write + Send> Display for RawJson<W> {
    fn finish(&mut self) {}

    /// None: the errors' logs are in the lines already.
    fn board(&self) -> Option<&Board> {
        None
    }
}

/// A status message in the form of BuildKit's Go client.
pub fn status_json(status: &StatusResponse) -> Value {
    let mut object = Map::new();
    let mut list = |key: &str, values: Vec<Value>| {
        if !values.is_empty() {
            object.insert(key.into(), Value::Array(values));
        }
    };
    list("vertexes", status.vertexes.iter().map(vertex).collect());
    list("statuses", status.statuses.iter().map(transfer).collect());
    list("logs", status.logs.iter().map(log).collect());
    list("warnings", status.warnings.iter().map(warning).collect());
    Value::Object(object)
}

fn vertex(vertex: &Vertex) -> Value {
    compact(json!({
        "digest": vertex.digest,
        "inputs": vertex.inputs,
        "name": vertex.name,
        "started": time(vertex.started.as_ref()),
        "completed": time(vertex.completed.as_ref()),
        "cached": vertex.cached,
        "error": vertex.error,
        "progressGroup": vertex.progress_group.as_ref().map(|group| compact(json!({
            "id": group.id, "name": group.name, "weak": group.weak,
        }))),
    }))
}

fn transfer(status: &VertexStatus) -> Value {
    let mut value = compact(json!({
        "vertex": status.vertex,
        "name": status.name,
        "total": status.total,
        "timestamp": time(status.timestamp.as_ref()),
        "started": time(status.started.as_ref()),
        "completed": time(status.completed.as_ref()),
    }));
    value["id"] = json!(status.id);
    value["current"] = json!(status.current);
    value
}

fn log(log: &VertexLog) -> Value {
    let mut value = compact(json!({ "vertex": log.vertex, "stream": log.stream }));
    value["data"] = json!(STANDARD.encode(&log.msg));
    value["timestamp"] = time(log.timestamp.as_ref());
    value
}

fn warning(warning: &VertexWarning) -> Value {
    let position = |p: Option<&bollard_buildkit_proto::pb::Position>| {
        p.map(|p| compact(json!({ "line": p.line, "character": p.character })))
    };
    let ranges: Vec<Value> = warning
        .ranges
        .iter()
        .map(|r| {
            compact(json!({ "start": position(r.start.as_ref()), "end": position(r.end.as_ref()) }))
        })
        .collect();
    compact(json!({
        "vertex": warning.vertex,
        "level": warning.level,
        "short": STANDARD.encode(&warning.short),
        "detail": warning.detail.iter().map(|d| STANDARD.encode(d)).collect::<Vec<_>>(),
        "url": warning.url,
        "sourceInfo": warning.info.as_ref().map(|info| compact(json!({
            "filename": info.filename, "data": STANDARD.encode(&info.data), "language": info.language,
        }))),
        "range": ranges,
    }))
}

/// Leaves out what Go's `omitempty` leaves out.
fn compact(value: Value) -> Value {
    let Value::Object(object) = value else {
        return value;
    };
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(_) => false,
    };
    Value::Object(
        object
            .into_iter()
            .filter(|(_, value)| !empty(value))
            .collect(),
    )
}

fn time(time: Option<&Timestamp>) -> Value {
    let text = time.and_then(|time| jiff::Timestamp::from_nanosecond(nanos(time).into()).ok());
    text.map_or(Value::Null, |text| Value::String(text.to_string()))
}
