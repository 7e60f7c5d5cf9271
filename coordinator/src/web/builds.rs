//! `GET /api/v1/builds`, one build, its logs.

use axum::Json;
use axum::extract::{Path, Query, State};
use buildyard_model::api::{BuildDetail, BuildOutcome as Shown, BuildSummary, StepInfo};
use buildyard_model::{BuildId, StepDigest};
use buildyard_store::{BuildOutcome, BuildRecord, StepLog, StepRecord};
use serde::Deserialize;

use super::{Shared, WebError};

const DEFAULT_LIMIT: u32 = 50;
const LARGEST_LIMIT: u32 = 1000;

#[derive(Deserialize)]
pub(super) struct ListQuery {
    limit: Option<u32>,
}

#[derive(Deserialize)]
pub(super) struct LogQuery {
    /// A step's digest, its number in the build (from 1), or a part of its name.
    step: Option<String>,
}

pub(super) async fn list(
    State(shared): State<Shared>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Vec<BuildSummary>>, WebError> {
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT).min(LARGEST_LIMIT);
    let builds = shared.store.list_builds(limit, None).await?;
    Ok(Json(builds.into_iter().map(summary).collect()))
}

pub(super) async fn detail(
    State(shared): State<Shared>,
    Path(id): Path<String>,
) -> Result<Json<BuildDetail>, WebError> {
    let (build, steps) = find(&shared, &id).await?;
    Ok(Json(BuildDetail {
        summary: summary(build),
        steps: steps.into_iter().map(step).collect(),
    }))
}

pub(super) async fn logs(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    Query(query): Query<LogQuery>,
) -> Result<String, WebError> {
    let (build, steps) = find(&shared, &id).await?;
    let wanted: Vec<&StepRecord> = match &query.step {
        None => steps.iter().collect(),
        Some(text) => chosen(&steps, text)?,
    };
    let mut out = String::new();
    for step in wanted {
        if let Some(StepLog::Text(bytes)) = shared.store.log(&build.id, step.step).await? {
            if query.step.is_none() {
                out.push_str(&format!("==> {}\n", step.name));
            }
            out.push_str(&String::from_utf8_lossy(&bytes));
            if !out.ends_with('\n') {
                out.push('\n');
            }
        }
    }
    Ok(out)
}

fn chosen<'a>(steps: &'a [StepRecord], text: &str) -> Result<Vec<&'a StepRecord>, WebError> {
    if let Ok(digest) = text.parse::<StepDigest>() {
        return Ok(steps.iter().filter(|step| step.step == digest).collect());
    }
    if let Ok(number) = text.parse::<usize>() {
        return Ok(steps
            .iter()
            .skip(number.saturating_sub(1))
            .take(usize::from(number > 0))
            .collect());
    }
    let found: Vec<_> = steps
        .iter()
        .filter(|step| step.name.contains(text))
        .collect();
    if found.is_empty() {
        return Err(WebError::BadRequest(format!(
            "no step of the build is called {text:?}\n"
        )));
    }
    Ok(found)
}

/// A build by its id, or by a beginning of it that is the only one.
async fn find(shared: &Shared, id: &str) -> Result<(BuildRecord, Vec<StepRecord>), WebError> {
    let exact = shared.store.build(&BuildId::new(id)).await?;
    let build = match exact {
        Some(build) => build,
        None => {
            let recent = shared.store.list_builds(LARGEST_LIMIT, None).await?;
            let mut begins: Vec<_> = recent
                .into_iter()
                .filter(|build| build.id.as_str().starts_with(id))
                .collect();
            match begins.len() {
                1 => begins.remove(0),
                0 => return Err(WebError::NotFound(format!("there is no build {id}\n"))),
                several => {
                    return Err(WebError::BadRequest(format!(
                        "{several} builds begin with {id}\n"
                    )));
                }
            }
        }
    };
    let steps = shared.store.steps(&build.id).await?;
    Ok((build, steps))
}

fn summary(build: BuildRecord) -> BuildSummary {
    BuildSummary {
        id: build.id.to_string(),
        started: Some(build.started.to_string()),
        finished: build.completed.map(|time| time.to_string()),
        outcome: match build.outcome {
            BuildOutcome::Running => Shown::Running,
            BuildOutcome::Succeeded => Shown::Succeeded,
            BuildOutcome::Failed => Shown::Failed,
            BuildOutcome::Interrupted => Shown::Interrupted,
            BuildOutcome::Cancelled => Shown::Canceled,
        },
        platforms: build.platforms.iter().map(ToString::to_string).collect(),
        steps_total: build.steps,
        steps_cached: build.steps_cached,
        error: match build.outcome {
            BuildOutcome::Interrupted => Some("the coordinator ended while it ran".to_owned()),
            _ => build.error,
        },
    }
}

fn step(step: StepRecord) -> StepInfo {
    StepInfo {
        name: step.name,
        platform: step.platform.map(|platform| platform.to_string()),
        worker: step.worker.map(|worker| worker.to_string()),
        cached: step.cached,
        emulated: step.emulated,
        started: step.started.map(|time| time.to_string()),
        completed: step.completed.map(|time| time.to_string()),
        error: step.error,
    }
}
