//! Registry credentials and tokens, asked of the client (`session/auth` in BuildKit).
//!
//! Two ways. A client that serves `FetchToken` gets tokens itself and keeps its password; one that doesn't hands out
//! the credentials. Token authorities (`GetTokenAuthority`) let several sessions prove that they hold the same
//! password; a coordinator that makes its registry client per build has no use for the proof, but the calls are here
//! because a client without `FetchToken` for a host says so there.

use std::fmt;

use bollard_buildkit_proto::moby::filesync::v1::auth_client::AuthClient;
use bollard_buildkit_proto::moby::filesync::v1::{
    CredentialsRequest, FetchTokenRequest, GetTokenAuthorityRequest, VerifyTokenAuthorityRequest,
};
use tonic::Code;

use crate::{Session, SessionError};

const CREDENTIALS: &str = "/moby.filesync.v1.Auth/Credentials";
const FETCH_TOKEN: &str = "/moby.filesync.v1.Auth/FetchToken";
const AUTHORITY: &str = "/moby.filesync.v1.Auth/GetTokenAuthority";
const VERIFY: &str = "/moby.filesync.v1.Auth/VerifyTokenAuthority";

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

    /// The public key (Ed25519) with which the client proves that it holds the password for `host`; `None` where the
    /// client has no account there, or no such thing.
    pub async fn token_authority(
        &self,
        host: &str,
        salt: &[u8],
    ) -> Result<Option<Vec<u8>>, SessionError> {
        if !self.supports(AUTHORITY) {
            return Ok(None);
        }
        let mut client = AuthClient::new(self.channel());
        let call = client.get_token_authority(GetTokenAuthorityRequest {
            host: host.to_owned(),
            salt: salt.to_vec(),
        });
        match self
            .call(
                &format!("asking the client for its token authority at {host}"),
                call,
            )
            .await
        {
            Ok(answer) => Ok(Some(answer.into_inner().public_key).filter(|key| !key.is_empty())),
            Err(err) => absent(err),
        }
    }

    /// `payload`, signed with the key of [`Session::token_authority`] (NaCl `sign`: signature, then message).
    pub async fn sign_with_authority(
        &self,
        host: &str,
        payload: &[u8],
        salt: &[u8],
    ) -> Result<Option<Vec<u8>>, SessionError> {
        if !self.supports(VERIFY) {
            return Ok(None);
        }
        let mut client = AuthClient::new(self.channel());
        let (payload, salt) = (payload.to_vec(), salt.to_vec());
        let call = client.verify_token_authority(VerifyTokenAuthorityRequest {
            host: host.to_owned(),
            payload,
            salt,
        });
        match self
            .call(
                &format!("asking the client to prove its account at {host}"),
                call,
            )
            .await
        {
            Ok(answer) => Ok(Some(answer.into_inner().signed)),
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
