//! The distribution API.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, Request, State as Shared};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use buildyard_model::Digest;
use bytes::Bytes;
use futures::StreamExt;

use super::faults::Trouble;
use super::{Content, State};

/// The longest upload that is taken.
const MAX_UPLOAD: usize = 256 << 20;

pub(crate) fn router(state: Arc<State>) -> Router {
    Router::new()
        .route("/token", get(token).post(token_by_post))
        .route("/v2/", any(api))
        .route("/v2/{*path}", any(api))
        .with_state(state)
}

async fn token(Shared(state): Shared<Arc<State>>, request: Request) -> Response {
    let query = request.uri().query().unwrap_or_default();
    let scopes = values(query, "scope");
    state.content().log.push("GET /token".to_owned());
    answer_token(&state, request.headers(), None, &scopes)
}

async fn token_by_post(
    Shared(state): Shared<Arc<State>>,
    headers: HeaderMap,
    body: String,
) -> Response {
    state.content().log.push("POST /token".to_owned());
    let refresh = values(&body, "refresh_token").pop();
    let scopes: Vec<String> = values(&body, "scope")
        .iter()
        .flat_map(|all| all.split(' '))
        .map(str::to_owned)
        .collect();
    answer_token(&state, &headers, refresh.as_deref().or(Some("")), &scopes)
}

fn answer_token(
    state: &State,
    headers: &HeaderMap,
    refresh: Option<&str>,
    scopes: &[String],
) -> Response {
    match state.guard.token(headers, refresh, scopes) {
        Some(token) => axum::Json(serde_json::json!({ "token": token })).into_response(),
        None => error(
            StatusCode::UNAUTHORIZED,
            "UNAUTHORIZED",
            "wrong name or password",
        ),
    }
}

fn values(query: &str, name: &str) -> Vec<String> {
    let pairs = reqwest::Url::parse(&format!("http://x/?{query}"))
        .expect("a received query is well formed");
    pairs
        .query_pairs()
        .filter(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
        .collect()
}

/// What a path names.
enum Place<'a> {
    Root,
    Manifest(&'a str, &'a str),
    Blob(&'a str, &'a str),
    Upload(&'a str),
}

fn place(path: &str) -> Option<Place<'_>> {
    let rest = path.strip_prefix("/v2/")?;
    if rest.is_empty() {
        return Some(Place::Root);
    }
    if let Some((repository, _)) = rest.split_once("/blobs/uploads/") {
        return Some(Place::Upload(repository));
    }
    if let Some((repository, name)) = rest.split_once("/manifests/") {
        return Some(Place::Manifest(repository, name));
    }
    rest.split_once("/blobs/")
        .map(|(repository, digest)| Place::Blob(repository, digest))
}

async fn api(
    Shared(state): Shared<Arc<State>>,
    Query(query): Query<HashMap<String, String>>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let line = format!("{} {path}", parts.method);
    state.content().log.push(line.clone());
    let Some(place) = place(&path) else {
        return error(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "no such path");
    };
    let trouble = trouble(&mut state.content(), &line);
    match trouble {
        Some(Trouble::Status(status)) => return error(status_code(status), "UNKNOWN", "injected"),
        Some(Trouble::Busy(status)) => {
            return (status_code(status), [("retry-after", "0")]).into_response();
        }
        Some(Trouble::Loop) => {
            return (StatusCode::TEMPORARY_REDIRECT, [("location", path.clone())]).into_response();
        }
        Some(Trouble::Stall(time)) => tokio::time::sleep(time).await,
        _ => {}
    }
    if let Err(refusal) =
        state
            .guard
            .check(&parts.headers, &state.base(), &scope(&place, &parts.method))
    {
        return *refusal;
    }
    let body = match axum::body::to_bytes(body, MAX_UPLOAD).await {
        Ok(body) => body,
        Err(cause) => return error(StatusCode::BAD_REQUEST, "SIZE_INVALID", &cause.to_string()),
    };
    answer(&state, &place, &parts, &query, body, trouble)
}

fn answer(
    state: &State,
    place: &Place<'_>,
    parts: &axum::http::request::Parts,
    query: &HashMap<String, String>,
    body: Bytes,
    trouble: Option<Trouble>,
) -> Response {
    let mut content = state.content();
    match (place, parts.method.as_str()) {
        (Place::Root, _) => axum::Json(serde_json::json!({})).into_response(),
        (Place::Manifest(repository, name), "GET" | "HEAD") => {
            read_manifest(&content, repository, name, trouble)
        }
        (Place::Manifest(repository, name), "PUT") => {
            write_manifest(&mut content, repository, name, parts, body)
        }
        (Place::Blob(repository, digest), "GET" | "HEAD") => {
            read_blob(&content, repository, digest, parts, trouble)
        }
        (Place::Upload(repository), "POST") => {
            begin(&mut content, repository, query, state.declines_mounts)
        }
        (Place::Upload(repository), "PUT") => finish(&mut content, repository, query, body),
        _ => error(
            StatusCode::METHOD_NOT_ALLOWED,
            "UNSUPPORTED",
            "not done here",
        ),
    }
}

fn scope(place: &Place<'_>, method: &Method) -> String {
    let actions = if matches!(method.as_str(), "GET" | "HEAD") {
        "pull"
    } else {
        "pull,push"
    };
    match place {
        Place::Root => String::new(),
        Place::Manifest(repository, _) | Place::Blob(repository, _) | Place::Upload(repository) => {
            format!("repository:{repository}:{actions}")
        }
    }
}

fn trouble(content: &mut Content, line: &str) -> Option<Trouble> {
    let fault = content
        .faults
        .iter_mut()
        .find(|fault| fault.times > 0 && line.contains(&fault.on))?;
    fault.times -= 1;
    Some(fault.trouble)
}

fn read_manifest(
    content: &Content,
    repository: &str,
    name: &str,
    trouble: Option<Trouble>,
) -> Response {
    let Some((media_type, bytes)) = content
        .manifests
        .get(&(repository.to_owned(), name.to_owned()))
    else {
        return error(
            StatusCode::NOT_FOUND,
            "MANIFEST_UNKNOWN",
            "manifest unknown",
        );
    };
    let mut answer = (
        StatusCode::OK,
        [("content-type", media_type.clone())],
        bytes.clone(),
    )
        .into_response();
    if trouble != Some(Trouble::NoDigest) {
        let digest = Digest::of(bytes)
            .to_string()
            .parse()
            .expect("a digest is a header's text");
        answer.headers_mut().insert("docker-content-digest", digest);
    }
    answer
}

fn write_manifest(
    content: &mut Content,
    repository: &str,
    name: &str,
    parts: &axum::http::request::Parts,
    body: Bytes,
) -> Response {
    let named: Vec<String> = referred(&body);
    let key = |digest: &String| (repository.to_owned(), digest.clone());
    let there = |digest: &String| {
        content.blobs.contains_key(&key(digest)) || content.manifests.contains_key(&key(digest))
    };
    if let Some(missing) = named.iter().find(|digest| !there(digest)) {
        return error(StatusCode::BAD_REQUEST, "MANIFEST_BLOB_UNKNOWN", missing);
    }
    let media_type = parts
        .headers
        .get("content-type")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let digest = Digest::of(&body).to_string();
    for name in [name.to_owned(), digest.clone()] {
        content.manifests.insert(
            (repository.to_owned(), name),
            (media_type.to_owned(), body.clone()),
        );
    }
    (StatusCode::CREATED, [("docker-content-digest", digest)]).into_response()
}

/// The digests that a document names.
fn referred(body: &[u8]) -> Vec<String> {
    let document: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let lists = ["layers", "manifests"]
        .into_iter()
        .filter_map(|name| document[name].as_array())
        .flatten();
    let all = lists.chain(document.get("config"));
    all.filter_map(|descriptor| descriptor["digest"].as_str())
        .map(str::to_owned)
        .collect()
}

fn read_blob(
    content: &Content,
    repository: &str,
    digest: &str,
    parts: &axum::http::request::Parts,
    trouble: Option<Trouble>,
) -> Response {
    let Some(bytes) = content
        .blobs
        .get(&(repository.to_owned(), digest.to_owned()))
    else {
        return error(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", "blob unknown");
    };
    let range = parts
        .headers
        .get("range")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let start = range
        .strip_prefix("bytes=")
        .and_then(|range| range.trim_end_matches('-').parse::<usize>().ok());
    let (status, bytes) = match start.filter(|_| trouble != Some(Trouble::NoRange)) {
        Some(start) if start >= bytes.len() => {
            return StatusCode::RANGE_NOT_SATISFIABLE.into_response();
        }
        Some(start) => (StatusCode::PARTIAL_CONTENT, bytes.slice(start..)),
        None => (StatusCode::OK, bytes.clone()),
    };
    let length = [("content-length", bytes.len().to_string())];
    match trouble {
        Some(Trouble::Cut(after)) => (status, length, cut(bytes, after)).into_response(),
        _ => (status, length, Body::from(bytes)).into_response(),
    }
}

/// A body that breaks off.
fn cut(bytes: Bytes, after: usize) -> Body {
    let part = bytes.slice(..after.min(bytes.len()));
    let broken = futures::stream::once(async {
        // What came before shall have left.
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        Err(std::io::Error::other("injected"))
    });
    Body::from_stream(futures::stream::iter([Ok(part)]).chain(broken))
}

fn begin(
    content: &mut Content,
    repository: &str,
    query: &HashMap<String, String>,
    declines: bool,
) -> Response {
    let mount = query
        .get("mount")
        .zip(query.get("from"))
        .filter(|_| !declines);
    let held = mount.and_then(|(digest, from)| {
        let bytes = content.blobs.get(&(from.clone(), digest.clone()))?;
        Some((digest, bytes.clone()))
    });
    if let Some((digest, bytes)) = held {
        content
            .blobs
            .insert((repository.to_owned(), digest.clone()), bytes);
        let location = format!("/v2/{repository}/blobs/{digest}");
        return (StatusCode::CREATED, [("location", location)]).into_response();
    }
    content.uploads += 1;
    let location = format!("/v2/{repository}/blobs/uploads/{}?state=x", content.uploads);
    (StatusCode::ACCEPTED, [("location", location)]).into_response()
}

fn finish(
    content: &mut Content,
    repository: &str,
    query: &HashMap<String, String>,
    body: Bytes,
) -> Response {
    let digest = query.get("digest").cloned().unwrap_or_default();
    if Digest::of(&body).to_string() != digest {
        return error(
            StatusCode::BAD_REQUEST,
            "DIGEST_INVALID",
            "the bytes have another digest",
        );
    }
    let location = format!("/v2/{repository}/blobs/{digest}");
    content.blobs.insert((repository.to_owned(), digest), body);
    (StatusCode::CREATED, [("location", location)]).into_response()
}

fn status_code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).expect("tests inject statuses that exist")
}

fn error(status: StatusCode, code: &str, message: &str) -> Response {
    let body = serde_json::json!({ "errors": [{ "code": code, "message": message }] });
    (status, axum::Json(body)).into_response()
}
