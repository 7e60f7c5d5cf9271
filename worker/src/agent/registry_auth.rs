//! Registry credentials of a job's client, asked of the coordinator for each use.

use async_trait::async_trait;
use buildyard_proto::v1 as proto;
use buildyard_registry::{Auth, AuthError, Credentials, Token, TokenRequest};

use super::link::Link;

/// The client of one job.
pub(super) struct JobAuth {
    pub(super) link: Link,
    pub(super) job: String,
}

#[async_trait]
impl Auth for JobAuth {
    async fn credentials(&self, host: &str) -> Result<Option<Credentials>, AuthError> {
        let request = proto::GetCredentialsRequest {
            job: self.job.clone(),
            host: host.to_owned(),
        };
        let reply = self.link.call(|mut client| {
            let request = request.clone();
            async move { client.get_credentials(request).await }
        });
        let reply = reply
            .await
            .map_err(|status| AuthError(status.message().to_owned()))?;
        let known = !(reply.username.is_empty() && reply.secret.is_empty());
        Ok(known.then_some(Credentials {
            user: reply.username,
            secret: reply.secret,
        }))
    }

    async fn fetch_token(&self, request: &TokenRequest) -> Result<Option<Token>, AuthError> {
        let request = proto::GetTokenRequest {
            job: self.job.clone(),
            host: request.host.clone(),
            realm: request.realm.clone(),
            service: request.service.clone(),
            scopes: request.scopes.clone(),
        };
        let reply = self.link.call(|mut client| {
            let request = request.clone();
            async move { client.get_token(request).await }
        });
        let reply = reply
            .await
            .map_err(|status| AuthError(status.message().to_owned()))?;
        Ok((!reply.token.is_empty()).then_some(Token(reply.token)))
    }
}
