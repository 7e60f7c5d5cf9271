//! What can go wrong between the coordinator and a client's session.

use std::time::Duration;

/// A request to a client's session that failed.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// No client opened a session of this id in time.
    #[error("no active session {id} (waited {} s): the client closed its connection or never opened one", waited.as_secs())]
    NotFound {
        /// The id that was asked for.
        id: String,
        /// How long the coordinator waited for it.
        waited: Duration,
    },
    /// A session of this id is already open.
    #[error("a session {0} is already open")]
    AlreadyOpen(String),
    /// The stream that opens a session lacks its id, or carries one that is no header text.
    #[error("a session stream needs the header {0}")]
    MissingHeader(&'static str),
    /// The client went away.
    #[error("the client's session {0} has ended")]
    Closed(String),
    /// The client doesn't serve what was asked for.
    #[error("the client of session {session} does not offer {method}: {needed_for}")]
    Unsupported {
        /// The session's id.
        session: String,
        /// The gRPC method that is missing.
        method: &'static str,
        /// What the build wanted it for.
        needed_for: String,
    },
    /// The client answered with an error.
    #[error("{doing}: {}", status.message())]
    Refused {
        /// What was tried.
        doing: String,
        /// The client's answer.
        status: Box<tonic::Status>,
    },
    /// The client broke the file protocol, or one of its limits.
    #[error("receiving {dir:?} from the client: {problem}")]
    BadTransfer {
        /// Name of the directory, as the client calls it.
        dir: String,
        /// What is wrong.
        problem: String,
    },
    /// The bytes of a context could not be kept.
    #[error("keeping the files of {dir:?}: {problem}")]
    Pack {
        /// Name of the directory, as the client calls it.
        dir: String,
        /// What the pack said.
        problem: String,
    },
    /// The bytes of an export could not be read.
    #[error("reading what is exported to the client")]
    Source(#[source] std::io::Error),
}

impl SessionError {
    /// A refusal by the client while `doing` something.
    pub(crate) fn refused(doing: impl Into<String>, status: tonic::Status) -> Self {
        Self::Refused {
            doing: doing.into(),
            status: Box::new(status),
        }
    }

    /// The gRPC code that the client answered with, where it answered.
    pub fn code(&self) -> Option<tonic::Code> {
        match self {
            Self::Refused { status, .. } => Some(status.code()),
            _ => None,
        }
    }

    /// Whether the connection broke under the call, rather than the client answering with an error.
    pub(crate) fn is_broken_connection(&self) -> bool {
        // Only what the transport said has a source; what the client answered is a status and nothing else.
        matches!(self, Self::Refused { status, .. } if std::error::Error::source(status.as_ref()).is_some())
    }
}
