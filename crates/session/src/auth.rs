//! Registry credentials and tokens, asked of the client (`session/auth` in BuildKit).
//!
//! Two ways. A client that serves `FetchToken` gets tokens itself and keeps its password; one that doesn't hands out
//! the credentials. Token authorities, by which several sessions prove that they hold the same password, are not asked for: a
//! coordinator makes its registry client per build.

use std::fmt;

use bollard_buildkit_proto::moby::filesync::v1::auth_client::AuthClient;
use bollard_buildkit_proto::moby::filesync::v1::{CredentialsRequest, FetchTokenRequest};
use tonic::Code;

use crate::{Session, SessionError};

const CREDENTIALS: &str = "/moby.filesync.v1.Auth/Credentials";
const FETCH_TOKEN: &str = "/moby.filesync.v1.Auth/FetchToken";

/// A registry account. With an empty name the secret is an identity (refresh) token.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User name, or empty.
    pub username: String,
    /// Password, or an identity token.
    pub secret: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// What a token is asked for: the parts of a registry's `WWW-Authenticate: Bearer` challenge.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenRequest {
    /// The registry's host (with port), as in the image's name; `registry-1.docker.io` for Docker Hub.
    pub host: String,
    /// The challenge's `realm`: the URL of the token server.
    pub realm: String,
    /// The challenge's `service`.
    pub service: String,
    /// `repository:NAME:pull,push` and the like.
    pub scopes: Vec<String>,
}

/// A bearer token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The token's text.
    pub token: String,
    /// Seconds that it lives from `issued_at`; 0 where the client doesn't say.
    pub expires_in_seconds: i64,
    /// Unix time in seconds; 0 where the client doesn't say.
    pub issued_at: i64,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("expires_in_seconds", &self.expires_in_seconds)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// The client's account at the registry `host`; `None` where it has none, or offers no accounts at all.
    pub async fn credentials(&self, host: &str) -> Result<Option<Credentials>, SessionError> {
        if !self.supports(CREDENTIALS) {
            return Ok(None);
        }
        let mut client = AuthClient::new(self.channel());
        let call = client.credentials(CredentialsRequest {
            host: host.to_owned(),
        });
        match self
            .call(
                &format!("asking the client for its account at {host}"),
                call,
            )
            .await
        {
            Ok(answer) => {
                let answer = answer.into_inner();
                let known = !answer.secret.is_empty() || !answer.username.is_empty();
                Ok(known.then_some(Credentials {
                    username: answer.username,
                    secret: answer.secret,
                }))
            }
            Err(err) => absent(err),
        }
    }

    /// A token from the client; `None` where the client doesn't get tokens, so that [`Session::credentials`] is the
    /// way. A token server's refusal is an error.
    pub async fn fetch_token(&self, request: &TokenRequest) -> Result<Option<Token>, SessionError> {
        if !self.supports(FETCH_TOKEN) {
            return Ok(None);
        }
        let mut client = AuthClient::new(self.channel());
        let call = client.fetch_token(FetchTokenRequest {
            client_id: "buildyard".to_owned(),
            host: request.host.clone(),
            realm: request.realm.clone(),
            service: request.service.clone(),
            scopes: request.scopes.clone(),
        });
        match self
            .call(
                &format!("asking the client for a token for {}", request.host),
                call,
            )
            .await
        {
            Ok(answer) => {
                let answer = answer.into_inner();
                Ok((!answer.token.is_empty()).then_some(Token {
                    token: answer.token,
                    expires_in_seconds: answer.expires_in,
                    issued_at: answer.issued_at,
                }))
            }
            Err(err) => absent(err),
        }
    }
}

/// Clients answer Unimplemented or Unavailable where they lack a service or an account; that is no failure.
fn absent<T>(err: SessionError) -> Result<Option<T>, SessionError> {
    match err.code() {
        Some(Code::Unimplemented | Code::Unavailable | Code::NotFound) => Ok(None),
        _ => Err(err),
    }
}
