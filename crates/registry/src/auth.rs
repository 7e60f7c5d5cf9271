//! Where credentials come from. The farm has none of its own: each build's client is asked, in memory, for this build.

use std::fmt;

use async_trait::async_trait;

/// The client that a build belongs to, as far as registries need it.
#[async_trait]
pub trait Auth: Send + Sync {
    /// Name and secret for `host` (Docker Hub is `registry-1.docker.io`), `None` where the client has none. Asked for
    /// Basic challenges, and for Bearer ones where [`Auth::fetch_token`] gave `None`. The name `<token>` or an empty one
    /// says that the secret is an identity token, as in Docker's configuration.
    async fn credentials(&self, host: &str) -> Result<Option<Credentials>, AuthError>;

    /// A token from the authorisation server that a Bearer challenge named, fetched by the client itself; `None` where
    /// the client can't, then it is fetched here with its credentials.
    async fn fetch_token(&self, request: &TokenRequest) -> Result<Option<Token>, AuthError>;
}

/// A name with its secret. `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The name.
    pub user: String,
    /// Password or identity token.
    pub secret: String,
}

impl Credentials {
    /// Whether the secret is an identity token (OAuth2 refresh token) and not a password.
    pub fn is_identity_token(&self) -> bool {
        self.user.is_empty() || self.user == "<token>"
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// What a token is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRequest {
    /// The registry's host.
    pub host: String,
    /// URL of the authorisation server.
    pub realm: String,
    /// The service's name there; may be empty.
    pub service: String,
    /// `repository:NAME:pull,push`.
    pub scopes: Vec<String>,
}

/// A bearer token. `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(pub String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// The client couldn't be asked, or was refused a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AuthError(pub String);

impl AuthError {
    /// Whether the authorisation server refused the client. Clients say so in text only: `unauthorized: …` and
    /// `unexpected status … 401 Unauthorized` are those of Docker's.
    pub(crate) fn is_refusal(&self) -> bool {
        let text = self.0.to_lowercase();
        ["unauthorized", "access denied", "forbidden"]
            .iter()
            .any(|said| text.contains(said))
    }
}

/// A client without credentials.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoAuth;

#[async_trait]
impl Auth for NoAuth {
    async fn credentials(&self, _host: &str) -> Result<Option<Credentials>, AuthError> {
        Ok(None)
    }

    async fn fetch_token(&self, _request: &TokenRequest) -> Result<Option<Token>, AuthError> {
        Ok(None)
    }
}

/// One name and secret for every host, for tests and tools.
#[derive(Debug, Clone)]
pub struct FixedAuth(pub Credentials);

#[async_trait]
impl Auth for FixedAuth {
    async fn credentials(&self, _host: &str) -> Result<Option<Credentials>, AuthError> {
        Ok(Some(self.0.clone()))
    }

    async fn fetch_token(&self, _request: &TokenRequest) -> Result<Option<Token>, AuthError> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_client_is_told_from_one_that_is_gone() {
        let check = |text: &str, refusal: bool| {
            assert_eq!(AuthError(text.to_owned()).is_refusal(), refusal, "{text}");
        };
        check(
            "failed to fetch oauth token: unexpected status from GET request to http://h/token: 401 Unauthorized",
            true,
        );
        check(
            "failed to fetch oauth token: unauthorized: incorrect user or password",
            true,
        );
        check(
            "unexpected status from POST request to http://h/token: 403 Forbidden",
            true,
        );
        check(
            "failed to do request: Get \"http://h/token\": dial tcp: connection refused",
            false,
        );
        check("the client's session 1 has ended", false);
    }
}
