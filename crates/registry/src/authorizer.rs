//! Answers a registry's challenges with what the build's client gives, and remembers the answers for this build.
//!
//! A Bearer challenge is answered with a token that the client fetches (BuildKit's `FetchToken`), or, where it can't, with one
//! fetched here by its credentials. Credentials themselves are shown only to a registry that asks for Basic.

use std::collections::HashMap;
use std::sync::Arc;

use reqwest::header::HeaderMap;
use serde::Deserialize;
use tokio::sync::Mutex;

use crate::challenge::{Challenge, best_challenge};
use crate::host::read_limited;
use crate::tls::Transport;
use crate::{Auth, Credentials, RegistryError, Token, TokenRequest};

/// The longest answer of an authorisation server.
const MAX_TOKEN_ANSWER: u64 = 1 << 20;
/// How this program calls itself to an OAuth2 server.
const CLIENT_ID: &str = "buildyard";

/// What goes along with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Authorization {
    /// Nothing.
    Anonymous,
    /// A token, and whose it is.
    Bearer { token: Token, tried: String },
    /// Name and password.
    Basic(Credentials),
}

impl Authorization {
    pub(crate) fn apply(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match self {
            Self::Anonymous => request,
            Self::Bearer { token, .. } => request.bearer_auth(&token.0),
            Self::Basic(credentials) => {
                request.basic_auth(&credentials.user, Some(&credentials.secret))
            }
        }
    }

    /// Which credentials these are, for people.
    pub(crate) fn tried(&self) -> String {
        match self {
            Self::Anonymous => "tried without credentials".to_owned(),
            Self::Bearer { tried, .. } => tried.clone(),
            Self::Basic(credentials) => format!("tried as user {:?}", credentials.user),
        }
    }
}

/// The answers for one registry.
pub(crate) struct Authorizer {
    host: String,
    transport: Transport,
    auth: Arc<dyn Auth>,
    http: reqwest::Client,
    // Held while a token is fetched: concurrent requests for one scope ask once.
    state: Mutex<State>,
}

struct State {
    challenge: Option<Challenge>,
    answers: HashMap<Vec<String>, Authorization>,
}

impl Authorizer {
    pub(crate) fn new(
        host: &str,
        transport: Transport,
        auth: Arc<dyn Auth>,
        http: reqwest::Client,
        challenge: Option<Challenge>,
    ) -> Self {
        let state = Mutex::new(State {
            challenge,
            answers: HashMap::new(),
        });
        Self {
            host: host.to_owned(),
            transport,
            auth,
            http,
            state,
        }
    }

    /// What to send with a request for these scopes.
    pub(crate) async fn authorization(
        &self,
        what: &str,
        scopes: &[String],
    ) -> Result<Authorization, RegistryError> {
        let mut state = self.state.lock().await;
        if let Some(known) = state.answers.get(scopes) {
            return Ok(known.clone());
        }
        let Some(challenge) = state.challenge.clone() else {
            return Ok(Authorization::Anonymous);
        };
        let answer = self.answer(what, &challenge, scopes).await?;
        state.answers.insert(scopes.to_vec(), answer.clone());
        Ok(answer)
    }

    /// What to send after the registry refused `rejected` with these headers; `None` where nothing better is to be had.
    pub(crate) async fn renew(
        &self,
        what: &str,
        scopes: &[String],
        rejected: &Authorization,
        headers: &HeaderMap,
    ) -> Result<Option<Authorization>, RegistryError> {
        let mut state = self.state.lock().await;
        if let Some(challenge) = best_challenge(headers) {
            state.challenge = Some(challenge);
        }
        let current = state.answers.get(scopes);
        if let Some(current) = current.filter(|current| *current != rejected) {
            return Ok(Some(current.clone()));
        }
        let Some(challenge) = state.challenge.clone() else {
            return Ok(None);
        };
        let answer = self.answer(what, &challenge, scopes).await?;
        if answer == *rejected {
            return Ok(None);
        }
        state.answers.insert(scopes.to_vec(), answer.clone());
        Ok(Some(answer))
    }

    async fn answer(
        &self,
        what: &str,
        challenge: &Challenge,
        scopes: &[String],
    ) -> Result<Authorization, RegistryError> {
        let Challenge::Bearer { realm, service } = challenge else {
            let credentials = self.credentials(what).await?;
            return Ok(credentials.map_or(Authorization::Anonymous, Authorization::Basic));
        };
        let request = TokenRequest {
            host: self.host.clone(),
            realm: realm.clone(),
            service: service.clone(),
            scopes: scopes.to_vec(),
        };
        let token = self
            .auth
            .fetch_token(&request)
            .await
            .map_err(|cause| self.unasked(what, cause))?;
        if let Some(token) = token {
            return Ok(Authorization::Bearer {
                token,
                tried: "tried with a token from the build's client".to_owned(),
            });
        }
        self.fetch_token(what, &request).await
    }

    async fn credentials(&self, what: &str) -> Result<Option<Credentials>, RegistryError> {
        let found = self
            .auth
            .credentials(&self.host)
            .await
            .map_err(|cause| self.unasked(what, cause))?;
        Ok(found.filter(|credentials| !credentials.secret.is_empty()))
    }

    fn unasked(&self, what: &str, cause: crate::AuthError) -> RegistryError {
        if cause.is_refusal() {
            return RegistryError::Unauthorized {
                what: what.to_owned(),
                host: self.host.clone(),
                tried: "the build's client asked for a token".to_owned(),
                message: crate::error::registry_message(cause.to_string().as_bytes()),
            };
        }
        RegistryError::Credentials {
            what: what.to_owned(),
            host: self.host.clone(),
            cause: cause.to_string(),
        }
    }

    /// Fetches a token from the authorisation server: distribution's token specification, and its OAuth2 form for identity
    /// tokens.
    async fn fetch_token(
        &self,
        what: &str,
        request: &TokenRequest,
    ) -> Result<Authorization, RegistryError> {
        let credentials = self.credentials(what).await?;
        let clear = request.realm.starts_with("http://") && self.transport != Transport::Plain;
        if credentials.is_some() && (clear || !request.realm.starts_with("http")) {
            let realm = &request.realm;
            return Err(RegistryError::Refused {
                what: what.to_owned(),
                status: 401,
                message: format!(
                    "{} wants credentials sent to {realm}, which is not encrypted",
                    self.host
                ),
                retry_after: None,
            });
        }
        let tried = match &credentials {
            None => "tried without credentials".to_owned(),
            Some(found) if found.is_identity_token() => {
                "tried with the client's identity token".to_owned()
            }
            Some(found) => format!("tried as user {:?}", found.user),
        };
        let built = self.token_request(request, credentials.as_ref());
        let response = built
            .send()
            .await
            .map_err(|error| RegistryError::from_request(what, &request.realm, &error))?;
        let status = response.status();
        let body = read_limited(what, &self.host, response, MAX_TOKEN_ANSWER).await?;
        if matches!(status.as_u16(), 400 | 401 | 403) {
            let message = crate::error::registry_message(&body);
            return Err(RegistryError::Unauthorized {
                what: what.to_owned(),
                host: self.host.clone(),
                tried,
                message,
            });
        }
        if !status.is_success() {
            return Err(RegistryError::from_status(
                what,
                status.as_u16().max(500),
                &body,
                None,
            ));
        }
        let token = read_token(&body).ok_or_else(|| RegistryError::Document {
            what: what.to_owned(),
            cause: format!("{} gave no token", request.realm),
        })?;
        Ok(Authorization::Bearer { token, tried })
    }

    fn token_request(
        &self,
        request: &TokenRequest,
        credentials: Option<&Credentials>,
    ) -> reqwest::RequestBuilder {
        if let Some(found) = credentials.filter(|found| found.is_identity_token()) {
            let scope = request.scopes.join(" ");
            let form = [
                ("grant_type", "refresh_token"),
                ("service", &request.service),
                ("client_id", CLIENT_ID),
                ("scope", &scope),
                ("refresh_token", &found.secret),
            ];
            return self.http.post(&request.realm).form(&form);
        }
        let mut query: Vec<(&str, &str)> = request
            .scopes
            .iter()
            .map(|scope| ("scope", scope.as_str()))
            .collect();
        if !request.service.is_empty() {
            query.push(("service", &request.service));
        }
        let get = self.http.get(&request.realm).query(&query);
        match credentials {
            Some(found) => get.basic_auth(&found.user, Some(&found.secret)),
            None => get,
        }
    }
}

fn read_token(body: &[u8]) -> Option<Token> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        token: String,
        #[serde(default)]
        access_token: String,
    }
    let answer: Answer = serde_json::from_slice(body).ok()?;
    [answer.token, answer.access_token]
        .into_iter()
        .find(|token| !token.is_empty())
        .map(Token)
}
