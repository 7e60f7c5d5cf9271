//! One client's session.

use std::collections::HashSet;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;

use crate::SessionError;

const ID: &str = "x-docker-expose-session-uuid";
const NAME: &str = "x-docker-expose-session-name";
const SHARED_KEY: &str = "x-docker-expose-session-sharedkey";
const METHOD: &str = "x-docker-expose-session-grpc-method";
/// Longest id, name or key that is taken; longer ones are nobody's.
const LONGEST: usize = 1024;
/// How long after a call has broken the session's own end is waited for; it comes at once where the client is gone.
const SETTLED: Duration = Duration::from_secs(2);

/// What a client says about its session when it opens it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionInfo {
    /// Random, chosen by the client.
    pub id: String,
    /// The client's name for it; often empty.
    pub name: String,
    /// Equal for contexts that are probably alike: which earlier tree to compare a new one with.
    pub shared_key: String,
    /// The gRPC methods that the client serves, in lower case: `/moby.filesync.v1.filesync/diffcopy`.
    pub methods: HashSet<String>,
}

impl SessionInfo {
    /// Reads the headers of a `Control.Session` call.
    pub fn from_metadata(metadata: &MetadataMap) -> Result<Self, SessionError> {
        let text = |key| {
            let value = metadata.get(key).and_then(|value| value.to_str().ok());
            value
                .filter(|text| text.len() <= LONGEST)
                .unwrap_or_default()
                .to_owned()
        };
        let id = text(ID);
        if id.is_empty() {
            return Err(SessionError::MissingHeader(ID));
        }
        let methods = metadata.get_all(METHOD).iter();
        let methods = methods
            .filter_map(|value| value.to_str().ok())
            .map(str::to_ascii_lowercase)
            .collect();
        Ok(Self {
            id,
            name: text(NAME),
            shared_key: text(SHARED_KEY),
            methods,
        })
    }
}

/// A client's session: what a build may ask of its client.
#[derive(Debug)]
pub struct Session {
    info: SessionInfo,
    channel: Channel,
    closed: CancellationToken,
}

impl Session {
    /// A session over `channel`, on which the client serves. `closed` is cancelled when the client is gone.
    pub fn new(info: SessionInfo, channel: Channel, closed: CancellationToken) -> Self {
        Self {
            info,
            channel,
            closed,
        }
    }

    /// The id that the client chose.
    pub fn id(&self) -> &str {
        &self.info.id
    }

    /// The client's name for the session.
    pub fn name(&self) -> &str {
        &self.info.name
    }

    /// See [`SessionInfo::shared_key`].
    pub fn shared_key(&self) -> &str {
        &self.info.shared_key
    }

    /// Cancelled when the client is gone. Builds end with it.
    pub fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    /// Whether the client serves `method`, e.g. `/moby.filesync.v1.Auth/FetchToken`. Case doesn't matter, as in
    /// BuildKit.
    pub fn supports(&self, method: &str) -> bool {
        self.info.methods.contains(&method.to_ascii_lowercase())
    }

    /// The connection, for services that this crate doesn't know.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Fails if the client doesn't serve `method`, saying what it was `needed_for`.
    pub(crate) fn require(
        &self,
        method: &'static str,
        needed_for: impl Into<String>,
    ) -> Result<(), SessionError> {
        if self.supports(method) {
            return Ok(());
        }
        Err(SessionError::Unsupported {
            session: self.info.id.clone(),
            method,
            needed_for: needed_for.into(),
        })
    }

    /// Runs a call, and ends it when the client is gone.
    pub(crate) async fn call<T>(
        &self,
        doing: &str,
        call: impl Future<Output = Result<T, tonic::Status>>,
    ) -> Result<T, SessionError> {
        let call = async {
            call.await
                .map_err(|status| SessionError::refused(doing, status))
        };
        self.while_open(call).await
    }

    /// Runs `work` with the client, and ends it when the client is gone.
    ///
    /// A call on a connection that breaks may hear of it before the session does: such an error is held back until it is
    /// known whether the client is gone, so that it does not depend on who was told first whether a build was given up
    /// or failed.
    pub(crate) async fn while_open<T>(
        &self,
        work: impl Future<Output = Result<T, SessionError>>,
    ) -> Result<T, SessionError> {
        let outcome = match self.closed.run_until_cancelled(work).await {
            Some(Err(error)) if error.is_broken_connection() => {
                match tokio::time::timeout(SETTLED, self.closed.cancelled()).await {
                    Ok(()) => None,
                    Err(_still_there) => Some(Err(error)),
                }
            }
            outcome => outcome,
        };
        outcome.unwrap_or_else(|| Err(SessionError::Closed(self.info.id.clone())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(closed: &CancellationToken) -> Session {
        let channel = Channel::from_static("http://unused.invalid").connect_lazy();
        let info = SessionInfo {
            id: "one".to_owned(),
            ..SessionInfo::default()
        };
        Session::new(info, channel, closed.clone())
    }

    fn broken() -> tonic::Status {
        tonic::Status::from_error(Box::new(std::io::Error::from(
            std::io::ErrorKind::BrokenPipe,
        )))
    }

    #[tokio::test]
    async fn a_call_that_breaks_when_the_client_goes_says_that_it_is_gone() {
        let closed = CancellationToken::new();
        let session = session(&closed);
        let call = session.call("asking", async { Err::<(), _>(broken()) });
        let goes = async { closed.cancel() };
        let (answer, ()) = tokio::join!(call, goes);
        assert!(matches!(answer, Err(SessionError::Closed(_))), "{answer:?}");
    }

    #[tokio::test]
    async fn a_call_that_breaks_while_the_client_stays_says_why() {
        let session = session(&CancellationToken::new());
        let answer = session
            .call("asking", async { Err::<(), _>(broken()) })
            .await;
        assert!(
            matches!(answer, Err(SessionError::Refused { .. })),
            "{answer:?}"
        );
    }

    #[tokio::test]
    async fn what_the_client_answers_is_passed_on_at_once() {
        let session = session(&CancellationToken::new());
        let refused = tonic::Status::permission_denied("no");
        let answer = session
            .call("asking", async { Err::<(), _>(refused) })
            .await;
        assert_eq!(
            answer.unwrap_err().code(),
            Some(tonic::Code::PermissionDenied)
        );
    }
}
