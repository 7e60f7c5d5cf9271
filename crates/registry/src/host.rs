//! One registry as one build sees it: how to speak to it, what it asks for, how much at one time.
//!
//! Blobs travel through `oci-client`. What it can't do is asked for here with the same authorization: documents, whose size
//! it doesn't limit; a manifest under a digest, where it insists on a `Location`; a mount that tells 201 from 202.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use oci_client::RegistryOperation;
use oci_client::errors::OciDistributionError;
use oci_client::secrets::RegistryAuth;
use oci_client::token_cache::{RegistryToken, RegistryTokenType, TokenCache};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{RequestBuilder, Response, StatusCode};
use tokio::sync::Semaphore;

use crate::authorizer::{Authorization, Authorizer};
use crate::challenge::best_challenge;
use crate::config::is_loopback;
use crate::tls::{Clients, Transport};
use crate::{Auth, RegistryConfig, RegistryError, Retry};

/// The most that is read of an answer that isn't success.
const MAX_ERROR_BODY: u64 = 64 << 10;

pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) retry: Retry,
    transport: Transport,
    clients: Clients,
    authorizer: Authorizer,
    /// Downloads and uploads are counted apart: an upload may wait for the download that it passes on.
    pub(crate) pulls: Arc<Semaphore>,
    pub(crate) pushes: Arc<Semaphore>,
}

/// Permission to read a repository.
pub(crate) fn pull_scope(repository: &str) -> String {
    format!("repository:{repository}:pull")
}

/// Permission to read and write a repository.
pub(crate) fn push_scope(repository: &str) -> String {
    format!("repository:{repository}:pull,push")
}

impl Host {
    /// Finds out how the host is to be spoken to: `/v2/` is asked for, by HTTPS, or by HTTP where that is allowed.
    pub(crate) async fn connect(
        what: &str,
        name: &str,
        config: &RegistryConfig,
        auth: Arc<dyn Auth>,
    ) -> Result<Self, RegistryError> {
        let mut failed = None;
        for transport in transports(name, config) {
            let clients = Clients::new(name, config, transport)?;
            match config
                .retry
                .run(|| ping(what, name, transport, &clients.http))
                .await
            {
                Ok(headers) => {
                    let challenge = best_challenge(&headers);
                    let authorizer =
                        Authorizer::new(name, transport, auth, clients.http.clone(), challenge);
                    let limit = || Arc::new(Semaphore::new(config.max_concurrency.max(1)));
                    let (pulls, pushes) = (limit(), limit());
                    let retry = config.retry;
                    return Ok(Self {
                        name: name.to_owned(),
                        retry,
                        transport,
                        clients,
                        authorizer,
                        pulls,
                        pushes,
                    });
                }
                Err(error) if !is_about_transport(&error) => return Err(error),
                // That it speaks plain HTTP says nothing new where that was tried first.
                Err(RegistryError::PlainHttp { .. }) if failed.is_some() => {}
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or_else(|| RegistryError::Config(format!("no way to speak to {name}"))))
    }

    /// URL of `path` below `/v2/`.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}://{}/v2/{path}", self.transport.scheme(), self.name)
    }

    /// Sends a request, authorized for `scopes`; where the registry wants other authorization, once more. Answers other
    /// than 401 and 403 are the caller's.
    pub(crate) async fn send(
        &self,
        what: &str,
        scopes: &[String],
        build: impl Fn(&reqwest::Client) -> RequestBuilder,
    ) -> Result<Response, RegistryError> {
        let mut shown = self.authorizer.authorization(what, scopes).await?;
        let mut renewed = false;
        loop {
            let request = shown.apply(build(&self.clients.http));
            let response = request
                .send()
                .await
                .map_err(|error| RegistryError::from_request(what, &self.name, &error))?;
            if !matches!(
                response.status(),
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
            ) {
                return Ok(response);
            }
            if response.status() == StatusCode::UNAUTHORIZED && !renewed {
                renewed = true;
                if let Some(next) = self
                    .authorizer
                    .renew(what, scopes, &shown, response.headers())
                    .await?
                {
                    shown = next;
                    continue;
                }
            }
            let body = read_limited(what, &self.name, response, MAX_ERROR_BODY)
                .await
                .unwrap_or_default();
            return Err(self.denied(what, &shown, &body));
        }
    }

    fn denied(&self, what: &str, shown: &Authorization, body: &[u8]) -> RegistryError {
        RegistryError::Unauthorized {
            what: what.to_owned(),
            host: self.name.clone(),
            tried: shown.tried(),
            message: crate::error::registry_message(body),
        }
    }

    /// Does `call` with the client library, authorized for `scopes`; where the registry wants other authorization, once more.
    pub(crate) async fn with_client<T, F, Fut>(
        &self,
        what: &str,
        target: &Target<'_>,
        call: F,
    ) -> Result<T, RegistryError>
    where
        F: Fn(oci_client::Client, oci_client::Reference) -> Fut,
        Fut: Future<Output = Result<T, OciDistributionError>>,
    {
        let mut shown = self.authorizer.authorization(what, &target.scopes).await?;
        let client = self.clients.oci()?;
        for last in [false, true] {
            let reference = self.hand_over(client, &shown, target).await;
            let error = match call(client.clone(), reference).await {
                Ok(value) => return Ok(value),
                Err(error) => RegistryError::from_client(what, &self.name, &shown.tried(), error),
            };
            if last || !matches!(error, RegistryError::Unauthorized { .. }) {
                return Err(error);
            }
            match self
                .authorizer
                .renew(
                    what,
                    &target.scopes,
                    &shown,
                    &self.challenge_of(what, target).await,
                )
                .await?
            {
                Some(next) => shown = next,
                None => return Err(error),
            }
        }
        unreachable!("the second try returns")
    }

    /// Gives the library this authorization for the target. The library would fetch a token of its own otherwise.
    async fn hand_over(
        &self,
        client: &oci_client::Client,
        shown: &Authorization,
        target: &Target<'_>,
    ) -> oci_client::Reference {
        let (host, repository) = (self.name.clone(), target.repository.to_owned());
        let reference =
            oci_client::Reference::with_digest(host, repository, target.digest.to_owned());
        let (stored, token) = match shown {
            Authorization::Anonymous => return reference,
            Authorization::Bearer { token, .. } => {
                (RegistryAuth::Bearer(token.0.clone()), bearer(&token.0))
            }
            Authorization::Basic(found) => {
                let (user, secret) = (found.user.clone(), found.secret.clone());
                (
                    RegistryAuth::Basic(user.clone(), secret.clone()),
                    RegistryTokenType::Basic(user, secret),
                )
            }
        };
        client.store_auth_if_needed(&self.name, &stored).await;
        let tokens: &TokenCache = &client.tokens;
        tokens.insert(&reference, target.operation, token).await;
        reference
    }

    /// The library keeps a refusal's headers to itself: a bare request for the same blob shows the challenge.
    async fn challenge_of(&self, what: &str, target: &Target<'_>) -> HeaderMap {
        let url = self.url(&format!("{}/blobs/{}", target.repository, target.digest));
        match self.clients.http.head(url).send().await {
            Ok(response) => response.headers().clone(),
            Err(error) => {
                tracing::debug!(%error, what, "no challenge to be had");
                HeaderMap::new()
            }
        }
    }
}

/// What a call of the client library is about.
pub(crate) struct Target<'a> {
    pub(crate) repository: &'a str,
    pub(crate) digest: &'a str,
    pub(crate) operation: RegistryOperation,
    pub(crate) scopes: Vec<String>,
}

fn transports(name: &str, config: &RegistryConfig) -> Vec<Transport> {
    let secure = if config.is_insecure(name) {
        Transport::Unchecked
    } else {
        Transport::Checked
    };
    match (is_loopback(name), config.is_insecure(name)) {
        (true, _) => vec![Transport::Plain, secure],
        (false, true) => vec![Transport::Unchecked, Transport::Plain],
        (false, false) => vec![Transport::Checked],
    }
}

/// Whether the host may just want to be spoken to in another way. One that is down or not well is so either way.
fn is_about_transport(error: &RegistryError) -> bool {
    match error {
        RegistryError::Refused { status, .. } => *status == 400,
        RegistryError::Unreachable { .. } => false,
        _ => true,
    }
}

/// Asks for `/v2/`. The answer's headers; its status says nothing yet, except that somebody there isn't well, or that
/// it is a TLS server that was spoken to in plain HTTP (Go's answers 400 and says so).
async fn ping(
    what: &str,
    name: &str,
    transport: Transport,
    http: &reqwest::Client,
) -> Result<HeaderMap, RegistryError> {
    let url = format!("{}://{name}/v2/", transport.scheme());
    let response = http
        .get(url)
        .send()
        .await
        .map_err(|error| RegistryError::from_request(what, name, &error))?;
    let status = response.status();
    if status.is_server_error()
        || status == StatusCode::TOO_MANY_REQUESTS
        || status == StatusCode::BAD_REQUEST
    {
        let wait = retry_after(response.headers());
        let body = read_limited(what, name, response, MAX_ERROR_BODY).await?;
        return Err(RegistryError::from_status(
            what,
            status.as_u16(),
            &body,
            wait,
        ));
    }
    Ok(response.headers().clone())
}

fn bearer(token: &str) -> RegistryTokenType {
    RegistryTokenType::Bearer(RegistryToken::Token {
        token: token.to_owned(),
    })
}

/// `Retry-After` in seconds; its form with a date is not heeded.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()
        .map(Duration::from_secs)
}

/// An answer's body, refused when it is longer than `limit` bytes.
pub(crate) async fn read_limited(
    what: &str,
    host: &str,
    mut response: Response,
    limit: u64,
) -> Result<Bytes, RegistryError> {
    let too_long = || RegistryError::Document {
        what: what.to_owned(),
        cause: format!("the registry's answer is longer than {limit} bytes"),
    };
    if response
        .content_length()
        .is_some_and(|length| length > limit)
    {
        return Err(too_long());
    }
    let mut body = BytesMut::new();
    while let Some(part) = response
        .chunk()
        .await
        .map_err(|error| RegistryError::from_request(what, host, &error))?
    {
        if (body.len() + part.len()) as u64 > limit {
            return Err(too_long());
        }
        body.extend_from_slice(&part);
    }
    Ok(body.freeze())
}

/// Turns an answer that isn't success into its error.
pub(crate) async fn expect_success(
    what: &str,
    host: &str,
    response: Response,
) -> Result<Response, RegistryError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let wait = retry_after(response.headers());
    let body = read_limited(what, host, response, MAX_ERROR_BODY)
        .await
        .unwrap_or_default();
    Err(RegistryError::from_status(
        what,
        status.as_u16(),
        &body,
        wait,
    ))
}
