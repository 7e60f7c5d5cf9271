//! What travels behind an error: `grpc-status-details-bin` holds Any values with a JSON body (BuildKit's
//! `util/grpcerrors`), among them the lines of the Dockerfile that the error comes from.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bollard_buildkit_proto::google::rpc;
use prost::Message;
use serde::Deserialize;

const SOURCE: &str = "github.com/moby/buildkit/errdefs.Source+json";
const VERTEX: &str = "github.com/moby/buildkit/errdefs.Vertex+json";
/// More source texts than this in one error are passed over.
const MAX_SOURCES: usize = 16;

/// The details of an error.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ErrorDetails {
    /// The step that failed.
    pub vertex: Option<String>,
    /// Where in which file.
    pub sources: Vec<SourceSnippet>,
}

/// A source file and the lines in question.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceSnippet {
    /// The file's name.
    pub filename: String,
    /// The whole file.
    pub text: String,
    /// The lines in question; empty when unknown.
    pub ranges: Vec<SourceRange>,
}

/// Lines, counted from 1, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceRange {
    /// The first line.
    pub first: u32,
    /// The last line.
    pub last: u32,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct SourceJson {
    info: Option<InfoJson>,
    ranges: Vec<RangeJson>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct InfoJson {
    filename: String,
    data: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RangeJson {
    start: PositionJson,
    end: PositionJson,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PositionJson {
    line: u32,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct VertexJson {
    digest: String,
}

impl ErrorDetails {
    /// Reads the details of a status; what cannot be read is passed over.
    pub fn of(status: &tonic::Status) -> Self {
        let mut details = Self::default();
        let Ok(message) = rpc::Status::decode(status.details()) else {
            return details;
        };
        for any in message.details {
            if any.type_url.ends_with(SOURCE) && details.sources.len() < MAX_SOURCES {
                details.sources.extend(source(&any.value));
            } else if any.type_url.ends_with(VERTEX) {
                let vertex: VertexJson = serde_json::from_slice(&any.value).unwrap_or_default();
                details.vertex = (!vertex.digest.is_empty()).then_some(vertex.digest);
            }
        }
        details
    }
}

fn source(json: &[u8]) -> Option<SourceSnippet> {
    let source: SourceJson = serde_json::from_slice(json).ok()?;
    let info = source.info?;
    let data = STANDARD.decode(info.data).ok()?;
    let ranges = source
        .ranges
        .iter()
        .filter(|range| range.start.line > 0)
        .map(|range| SourceRange {
            first: range.start.line,
            last: range.end.line.max(range.start.line),
        });
    Some(SourceSnippet {
        filename: info.filename,
        text: String::from_utf8_lossy(&data).into_owned(),
        ranges: ranges.collect(),
    })
}

#[cfg(test)]
mod tests {
    use bollard_buildkit_proto::google::protobuf::Any;

    use super::*;

    #[test]
    fn the_source_of_an_error_is_read() {
        let any = |type_url: &str, json: &str| Any {
            type_url: type_url.into(),
            value: json.as_bytes().to_vec(),
        };
        let message = rpc::Status {
            code: 2,
            message: "failed".into(),
            details: vec![
                any(VERTEX, r#"{"digest":"sha256:ab"}"#),
                any(
                    "github.com/moby/buildkit/stack.Stack+json",
                    r#"{"frames":[]}"#,
                ),
                any(
                    SOURCE,
                    r#"{"info":{"filename":"Dockerfile","data":"RlJPTSBhClJVTiBiCg=="},
                        "ranges":[{"start":{"line":2},"end":{"line":2}}]}"#,
                ),
            ],
        };
        let status = tonic::Status::with_details(
            tonic::Code::Unknown,
            "failed",
            message.encode_to_vec().into(),
        );
        let details = ErrorDetails::of(&status);
        assert_eq!(details.vertex.as_deref(), Some("sha256:ab"));
        assert_eq!(
            details.sources,
            [SourceSnippet {
                filename: "Dockerfile".into(),
                text: "FROM a\nRUN b\n".into(),
                ranges: vec![SourceRange { first: 2, last: 2 }],
            }]
        );
    }

    #[test]
    fn nonsense_is_passed_over() {
        let status = tonic::Status::with_details(
            tonic::Code::Unknown,
            "failed",
            b"nonsense".to_vec().into(),
        );
        assert_eq!(ErrorDetails::of(&status), ErrorDetails::default());
    }
}
