//! Bearer tokens of a registry's authorization service (distribution specification, "token" and "oauth2" endpoints).

use std::time::Duration;

use bollard_buildkit_proto::moby::filesync::v1::{FetchTokenRequest, FetchTokenResponse};
use serde::Deserialize;
use tonic::Status;

/// The life of a token whose answer names none, in seconds (the specification's default).
const DEFAULT_LIFE: i64 = 60;
const MAX_ANSWER: usize = 1 << 20;

/// What a user logs in with; an empty user name means that `secret` is an identity token.
#[derive(Clone, Default)]
pub(super) struct Login {
    /// The user's name.
    pub(super) username: String,
    /// Password or identity token.
    pub(super) secret: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Answer {
    token: String,
    access_token: String,
    expires_in: i64,
}

/// Asks the realm for a token: by the oauth2 form when there is a login, else (or where the realm has no such form) by GET.
///
/// # Errors
/// The realm is out of reach, refuses, or answers something else.
pub(super) async fn fetch(
    request: &FetchTokenRequest,
    login: Option<&Login>,
) -> Result<FetchTokenResponse, Status> {
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(30))
        .user_agent(concat!("buildyard/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| Status::internal(format!("cannot set an HTTP client up: {error}")))?;
    if let Some(login) = login.filter(|login| !login.secret.is_empty()) {
        let response = send(
            request,
            client.post(&request.realm).form(&form(request, login)),
        )
        .await?;
        // Some registries have no oauth2 endpoint and answer one of these.
        if ![400, 401, 404, 405].contains(&response.status().as_u16()) || login.username.is_empty()
        {
            return answer(request, response).await;
        }
    }
    let mut query: Vec<(&str, &str)> = request
        .scopes
        .iter()
        .map(|scope| ("scope", scope.as_str()))
        .collect();
    if !request.service.is_empty() {
        query.push(("service", &request.service));
    }
    let url = reqwest::Url::parse_with_params(&request.realm, query).map_err(|error| {
        Status::invalid_argument(format!("{:?} is not a realm: {error}", request.realm))
    })?;
    let get = match login {
        Some(login) => client
            .get(url)
            .basic_auth(&login.username, Some(&login.secret)),
        None => client.get(url),
    };
    answer(request, send(request, get).await?).await
}

fn form(request: &FetchTokenRequest, login: &Login) -> Vec<(&'static str, String)> {
    let client_id = if request.client_id.is_empty() {
        "buildyard"
    } else {
        &request.client_id
    };
    let mut form = vec![
        ("client_id", client_id.to_owned()),
        ("service", request.service.clone()),
    ];
    if !request.scopes.is_empty() {
        form.push(("scope", request.scopes.join(" ")));
    }
    if login.username.is_empty() {
        form.push(("grant_type", "refresh_token".into()));
        form.push(("refresh_token", login.secret.clone()));
    } else {
        form.push(("grant_type", "password".into()));
        form.push(("username", login.username.clone()));
        form.push(("password", login.secret.clone()));
    }
    form
}

async fn send(
    request: &FetchTokenRequest,
    call: reqwest::RequestBuilder,
) -> Result<reqwest::Response, Status> {
    call.send().await.map_err(|error| {
        Status::unavailable(format!(
            "cannot ask {} for a token for {}: {error}",
            request.realm, request.host
        ))
    })
}

async fn answer(
    request: &FetchTokenRequest,
    mut response: reqwest::Response,
) -> Result<FetchTokenResponse, Status> {
    let status = response.status();
    if !status.is_success() {
        let message = format!(
            "{} gave no token for {}: {status}",
            request.realm, request.host
        );
        return Err(match status.as_u16() {
            401 => Status::unauthenticated(message),
            403 => Status::permission_denied(message),
            _ => Status::unavailable(message),
        });
    }
    let broken = |reason: String| {
        Status::unavailable(format!("{} gave no usable answer: {reason}", request.realm))
    };
    let mut body = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| broken(error.to_string()))?
    {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err(broken("more than 1 MiB".into()));
        }
        body.extend_from_slice(&chunk);
    }
    let answer: Answer =
        serde_json::from_slice(&body).map_err(|error| broken(error.to_string()))?;
    let token = if answer.token.is_empty() {
        answer.access_token
    } else {
        answer.token
    };
    if token.is_empty() {
        return Err(broken("no token in it".into()));
    }
    let expires_in = if answer.expires_in > 0 {
        answer.expires_in
    } else {
        DEFAULT_LIFE
    };
    Ok(FetchTokenResponse {
        token,
        expires_in,
        issued_at: 0,
    })
}
