//! One HTTP/1.1 request over a connection that [`crate::connect`] opens.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;

use crate::connect::{ConnectError, Farm};
use crate::exit::{Failure, root_cause};

const TIMEOUT: Duration = Duration::from_secs(30);
/// Logs are the largest answers.
const MAX_ANSWER: usize = 256 << 20;

/// Why the API gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The farm is out of reach.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection broke, or what answers is no farm.
    #[error("{target} does not answer {path} as a farm does: {reason}")]
    Broken {
        /// The farm's URL.
        target: String,
        /// What was asked.
        path: String,
        /// What went wrong.
        reason: String,
    },
    /// The farm knows no such thing.
    #[error("the farm at {target} does not know {what}")]
    Unknown {
        /// The farm's URL.
        target: String,
        /// What was asked for.
        what: String,
    },
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::Connect(error) => error.into(),
            ApiError::Unknown { .. } => Self::Asked(error.into()),
            ApiError::Broken { .. } => Self::Farm(error.into()),
        }
    }
}

/// Asks for a path and reads the answer as JSON; `what` names the thing in an error.
///
/// # Errors
/// As [`get_text`]; also when the answer has another form.
pub async fn get_json<T: DeserializeOwned>(
    farm: &Farm,
    path: &str,
    what: &str,
) -> Result<T, ApiError> {
    let body = get(farm, path, what).await?;
    serde_json::from_slice(&body).map_err(|error| broken(farm, path, &error))
}

/// Asks for a path and reads the answer as text.
///
/// # Errors
/// The farm is out of reach, does not know the thing, or answers with an error.
pub async fn get_text(farm: &Farm, path: &str, what: &str) -> Result<String, ApiError> {
    Ok(String::from_utf8_lossy(&get(farm, path, what).await?).into_owned())
}

async fn get(farm: &Farm, path: &str, what: &str) -> Result<Bytes, ApiError> {
    match tokio::time::timeout(TIMEOUT, request(farm, path, what)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(broken(farm, path, &"no answer within 30 seconds")),
    }
}

async fn request(farm: &Farm, path: &str, what: &str) -> Result<Bytes, ApiError> {
    let stream = TokioIo::new(farm.dial(b"http/1.1").await?);
    let fail = |error: &dyn std::fmt::Display| broken(farm, path, error);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream)
        .await
        .map_err(|e| fail(&e))?;
    let request = Request::get(path)
        .header(header::HOST, farm.authority())
        .header(header::ACCEPT, "application/json, text/plain")
        .body(Empty::<Bytes>::new())
        .map_err(|error| fail(&error))?;
    let exchange = async move {
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| fail(&unanswered(farm, &error)))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(|error| fail(&error))?;
        match status {
            StatusCode::OK => Ok(body.to_bytes()),
            StatusCode::NOT_FOUND => Err(ApiError::Unknown {
                target: farm.target().to_string(),
                what: what.to_owned(),
            }),
            status => Err(fail(&format!("{status} {}", excerpt(&body.to_bytes())))),
        }
    };
    // The connection works while it is polled, and ends when the exchange has dropped its sender. If it fails, so does
    // the exchange, which says more.
    let (outcome, _) = tokio::join!(exchange, connection);
    outcome
}

/// Why a connection ended without an answer.
fn unanswered(farm: &Farm, error: &hyper::Error) -> String {
    let reason = root_cause(error).unwrap_or_else(|| error.to_string());
    match farm.certificate_hint() {
        Some(hint) => format!("{reason}; {hint}"),
        None => reason,
    }
}

fn excerpt(body: &[u8]) -> String {
    String::from_utf8_lossy(body)
        .chars()
        .filter(|c| !c.is_control())
        .take(300)
        .collect()
}

fn broken(farm: &Farm, path: &str, reason: &dyn std::fmt::Display) -> ApiError {
    ApiError::Broken {
        target: farm.target().to_string(),
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}
