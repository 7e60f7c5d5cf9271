//! Build errors on the wire, with the details that make clients print the Dockerfile's lines.
//!
//! Details are `google.rpc.Status` in the trailer `grpc-status-details-bin`; each is an Any whose value is **JSON**,
//! named by a type URL of BuildKit's Go packages (`util/grpcerrors`, `solver/errdefs`). `errdefs.Solve` is not sent: it
//! offers a debugger the containers of a failed step, which this builder doesn't have.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard_buildkit_proto::google::protobuf::Any;
use bollard_buildkit_proto::google::rpc;
use bollard_buildkit_proto::pb;
use prost::Message as _;
use serde_json::json;
use tonic::{Code, Status};

use crate::backend::{BuildError, SourceLocation};

const VERTEX: &str = "github.com/moby/buildkit/errdefs.Vertex+json";
const SOURCE: &str = "github.com/moby/buildkit/errdefs.Source+json";
/// Longest message, in bytes.
const LONGEST_MESSAGE: usize = 64 * 1024;
/// Source files larger than this are not sent along: they travel in a header.
const LARGEST_SOURCE: usize = 512 * 1024;

/// The status for a client.
pub(crate) fn to_status(error: &BuildError) -> Status {
    let message = clip(&error.message);
    let code = if error.code == Code::Ok {
        Code::Unknown
    } else {
        error.code
    };
    let details = details(error);
    if details.is_empty() {
        return Status::new(code, message);
    }
    let body = rpc::Status {
        code: code as i32,
        message: message.to_owned(),
        details,
    };
    Status::with_details(code, message, body.encode_to_vec().into())
}

impl From<BuildError> for Status {
    fn from(error: BuildError) -> Self {
        to_status(&error)
    }
}

/// An error that a client hands in with `Return`; its details go back as they came.
pub(crate) fn from_rpc(status: rpc::Status) -> BuildError {
    let mut error = BuildError::new(Code::from_i32(status.code), clip(&status.message));
    if error.code == Code::Ok {
        error.code = Code::Unknown;
    }
    error.details = status.details;
    error
}

fn details(error: &BuildError) -> Vec<Any> {
    let mut details = error.details.clone();
    // Clients wrap in this order: what comes last is outermost, and printed first.
    let sources = error
        .sources
        .iter()
        .filter(|source| source.info.data.len() <= LARGEST_SOURCE);
    details.extend(sources.map(|location| any(SOURCE, &source(location))));
    details.extend(
        error
            .vertex
            .map(|step| any(VERTEX, &json!({ "digest": step.to_string() }))),
    );
    details
}

fn any(type_url: &str, value: &serde_json::Value) -> Any {
    Any {
        type_url: type_url.to_owned(),
        value: value.to_string().into_bytes(),
    }
}

fn source(location: &SourceLocation) -> serde_json::Value {
    let info = &location.info;
    json!({
        "info": {
            "filename": info.filename,
            "language": info.language,
            "data": STANDARD.encode(&info.data),
        },
        "ranges": location.ranges.iter().map(range).collect::<Vec<_>>(),
    })
}

fn range(range: &pb::Range) -> serde_json::Value {
    let position = |position: Option<pb::Position>| {
        let position = position.unwrap_or_default();
        json!({ "line": position.line, "character": position.character })
    };
    json!({ "start": position(range.start), "end": position(range.end) })
}

fn clip(message: &str) -> &str {
    let end = (0..=message.len().min(LONGEST_MESSAGE))
        .rev()
        .find(|end| message.is_char_boundary(*end));
    &message[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn located() -> BuildError {
        let info = pb::SourceInfo {
            filename: "Dockerfile".into(),
            data: b"FROM a\n".to_vec(),
            ..Default::default()
        };
        let line = |line| Some(pb::Position { line, character: 0 });
        let step = buildyard_model::StepDigest(buildyard_model::Digest::of("step"));
        BuildError::failed("no").at_step(step).at_source(
            info,
            vec![pb::Range {
                start: line(1),
                end: line(2),
            }],
        )
    }

    #[test]
    fn details_are_json_under_buildkits_type_urls() {
        let status = to_status(&located());
        assert_eq!((status.code(), status.message()), (Code::Unknown, "no"));
        let body = rpc::Status::decode(status.details()).unwrap();
        assert_eq!((body.code, body.message.as_str()), (2, "no"));
        let [source, vertex] = &body.details[..] else {
            panic!("{:?}", body.details)
        };
        assert_eq!(
            (source.type_url.as_str(), vertex.type_url.as_str()),
            (SOURCE, VERTEX)
        );
        let source: serde_json::Value = serde_json::from_slice(&source.value).unwrap();
        assert_eq!(
            source["info"],
            json!({"filename": "Dockerfile", "language": "", "data": "RlJPTSBhCg=="})
        );
        assert_eq!(source["ranges"][0]["end"]["line"], 2);
    }

    #[test]
    fn a_clients_own_error_goes_back_with_its_details() {
        let status = to_status(&located());
        let body = rpc::Status::decode(status.details()).unwrap();
        let back = to_status(&from_rpc(body));
        assert_eq!(
            (back.code(), back.message(), back.details()),
            (status.code(), status.message(), status.details())
        );
    }

    #[test]
    fn long_messages_are_cut_at_a_character() {
        let long = "ü".repeat(LONGEST_MESSAGE);
        assert_eq!(clip(&long).len(), LONGEST_MESSAGE);
        assert_eq!(clip(&format!("x{long}")).len(), LONGEST_MESSAGE - 1);
    }
}
