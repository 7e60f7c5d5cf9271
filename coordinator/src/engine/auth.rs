//! A build's client as the one who answers for registry credentials.

use std::sync::Arc;

use async_trait::async_trait;
use buildyard_registry::{Auth, AuthError, Credentials, Token, TokenRequest};
use buildyard_session::Session;

/// Asks the client of a session, each time; keeps nothing.
pub(super) struct SessionAuth(pub(super) Arc<Session>);

#[async_trait]
impl Auth for SessionAuth {
    async fn credentials(&self, host: &str) -> Result<Option<Credentials>, AuthError> {
        let found = self
            .0
            .credentials(host)
            .await
            .map_err(|error| AuthError(error.to_string()))?;
        Ok(found.map(|found| Credentials {
            user: found.username,
            secret: found.secret,
        }))
    }

    async fn fetch_token(&self, request: &TokenRequest) -> Result<Option<Token>, AuthError> {
        let request = buildyard_session::TokenRequest {
            host: request.host.clone(),
            realm: request.realm.clone(),
            service: request.service.clone(),
            scopes: request.scopes.clone(),
        };
        let token = self
            .0
            .fetch_token(&request)
            .await
            .map_err(|error| AuthError(error.to_string()))?;
        Ok(token.map(|token| Token(token.token)))
    }
}
