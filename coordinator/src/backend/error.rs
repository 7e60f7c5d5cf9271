//! Why a build failed, with what clients need to show it.

use std::fmt;

use bollard_buildkit_proto::google::protobuf::Any;
use bollard_buildkit_proto::pb;
use buildyard_model::StepDigest;
use buildyard_session::SessionError;
use tonic::Code;

/// A failed build.
///
/// Codes: clients print the code's name in front of the message unless it is [`Code::Unknown`], which is therefore
/// the code of everything that the user's own files caused. Texts that clients match on are BuildKit's: a failed
/// command is `process "/bin/sh -c false" did not complete successfully: exit code: 1`.
#[derive(Debug, Clone)]
pub struct BuildError {
    /// The status code.
    pub code: Code,
    /// For the user. Never internals.
    pub message: String,
    /// The step that failed.
    pub vertex: Option<StepDigest>,
    /// Where in the Dockerfile (or another source) it is; clients print the lines. The innermost first.
    pub sources: Vec<SourceLocation>,
    /// Details that came from a client with its own error and go back as they are.
    pub details: Vec<Any>,
    /// The build was given up because the coordinator stops.
    pub interrupted: bool,
}

/// A place in a source file.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceLocation {
    /// The file, with its content.
    pub info: pb::SourceInfo,
    /// Lines, counted from 1.
    pub ranges: Vec<pb::Range>,
}

impl BuildError {
    /// An error without a place.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            vertex: None,
            sources: Vec::new(),
            details: Vec::new(),
            interrupted: false,
        }
    }

    /// The user's files or commands are wrong.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Code::Unknown, message)
    }

    /// The request itself is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    /// There is no such thing.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Code::NotFound, message)
    }

    /// The build was given up. Clients look for this very text.
    pub fn cancelled() -> Self {
        Self::new(Code::Cancelled, "context canceled")
    }

    /// The command of a RUN step ended with `exit_code`.
    pub fn command(args: &[String], exit_code: i32) -> Self {
        let command = quote(&args.join(" "));
        Self::failed(format!(
            "process {command} did not complete successfully: exit code: {exit_code}"
        ))
    }

    /// The build was given up because the coordinator stops.
    pub fn interrupted() -> Self {
        let message = "the coordinator is stopping and has cancelled the build; what was finished is kept: build again \
                       when it is back";
        Self {
            interrupted: true,
            ..Self::new(Code::Unavailable, message)
        }
    }

    /// Whether the build was given up rather than failed.
    pub fn is_cancelled(&self) -> bool {
        self.code == Code::Cancelled || self.interrupted
    }

    /// Says which step failed.
    pub fn at_step(mut self, step: StepDigest) -> Self {
        self.vertex = Some(step);
        self
    }

    /// Says where it is written.
    pub fn at_source(mut self, info: pb::SourceInfo, ranges: Vec<pb::Range>) -> Self {
        self.sources.push(SourceLocation { info, ranges });
        self
    }

    /// Puts `context: ` in front of the message.
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }
}

/// Quotes as Go's `%q`: the usual escapes, other control characters as `\xNN`, everything printable as it is.
fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for char in text.chars() {
        match char {
            '"' | '\\' => out.extend(['\\', char]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            _ if char.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(char))),
            _ if char.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(char))),
            _ => out.push(char),
        }
    }
    out.push('"');
    out
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for BuildError {}

impl From<SessionError> for BuildError {
    fn from(err: SessionError) -> Self {
        let code = match &err {
            SessionError::Closed(_) => return Self::cancelled(),
            SessionError::NotFound { .. } => Code::NotFound,
            SessionError::Unsupported { .. } => Code::FailedPrecondition,
            SessionError::AlreadyOpen(_) => Code::AlreadyExists,
            SessionError::MissingHeader(_) => Code::InvalidArgument,
            SessionError::Pack { .. } | SessionError::Source(_) => Code::Internal,
            SessionError::BadTransfer { .. } | SessionError::Refused { .. } => Code::Unknown,
        };
        Self::new(code, err.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_command_is_told_in_buildkits_words() {
        let check = |command: &str, expected: &str| {
            let args = ["/bin/sh", "-c", command].map(str::to_owned);
            let expected = format!(
                "process \"/bin/sh -c {expected}\" did not complete successfully: exit code: 2"
            );
            assert_eq!(BuildError::command(&args, 2).message, expected);
        };
        check("false", "false");
        check(
            "echo \"a\\b\"\n\tgrün'\u{1b}",
            r#"echo \"a\\b\"\n\tgrün'\x1b"#,
        );
    }
}
