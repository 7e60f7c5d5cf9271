//! What the gateway's calls have in common: their build, and the translation of solves and look-ups.

use std::sync::Arc;
use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1::frontend::{
    FileRange, Result as Result_, SolveRequest, SolveResponse, result,
};
use tonic::Status;
use tonic::metadata::MetadataMap;

use super::Api;
use super::running::Running;
use crate::backend::{BuildError, ByteRange, ImageQuery, ResolvedConfig, SolveInput, Solved, What};

const BUILD_ID: &str = "buildkit-controlapi-buildid";
/// The gateway's calls come beside the solve, which waits for the session first.
const BUILD_WITHIN: Duration = Duration::from_secs(15);
/// Largest file that a client may read in one call; the answer must fit a message.
pub(crate) const LARGEST_READ: u64 = 15 << 20;

impl Api {
    /// The build that the call names. Calls come beside the solve, so it is waited for.
    pub(crate) async fn running(&self, metadata: &MetadataMap) -> Result<Arc<Running>, Status> {
        let id = metadata
            .get(BUILD_ID)
            .and_then(|id| id.to_str().ok())
            .unwrap_or_default();
        if id.is_empty() {
            return Err(Status::invalid_argument(format!(
                "a gateway call needs its build's id in {BUILD_ID}"
            )));
        }
        let running = self.0.builds.get(id, BUILD_WITHIN).await?;
        if running.build.progress.is_finished() {
            return Err(Status::failed_precondition(format!(
                "the build {id} has ended"
            )));
        }
        Ok(running)
    }

    /// Solves for the client.
    pub(crate) async fn bridge_solve(
        &self,
        running: Arc<Running>,
        request: SolveRequest,
    ) -> Result<SolveResponse, Status> {
        let array_refs = request.allow_result_array_ref;
        let return_result = request.allow_result_return;
        let input = solve_input(request)?;
        let shared = self.0.clone();
        let build = running.build.clone();
        let cancel = build.cancel.clone();
        let solve = async move {
            match input {
                Some(input) => shared.backend.solve(&build, input).await,
                None => Ok(Solved::default()),
            }
        };
        let solved = self.0.run(cancel, solve).await?;
        let result = running.publish(solved, array_refs)?;
        let r#ref = if return_result {
            String::new()
        } else {
            default_ref(&result)?
        };
        Ok(SolveResponse {
            r#ref,
            result: Some(result),
        })
    }

    /// Looks an image up for the client.
    pub(crate) async fn bridge_resolve(
        &self,
        running: Arc<Running>,
        query: ImageQuery,
    ) -> Result<ResolvedConfig, Status> {
        let (shared, build) = (self.0.clone(), running.build.clone());
        let cancel = build.cancel.clone();
        self.0
            .run(cancel, async move {
                shared.backend.resolve_image(&build, query).await
            })
            .await
    }
}

/// What to solve; `None`: nothing, which yields nothing.
fn solve_input(request: SolveRequest) -> Result<Option<SolveInput>, BuildError> {
    if !request.source_policies.is_empty() {
        let message =
            "source policies are not supported by this builder; run the build without one";
        return Err(BuildError::new(tonic::Code::Unimplemented, message));
    }
    let definition = request
        .definition
        .filter(|definition| !definition.def.is_empty());
    let what = match (definition, request.frontend.is_empty()) {
        (Some(_), false) => {
            return Err(BuildError::invalid(
                "cannot solve with both Definition and Frontend specified",
            ));
        }
        (Some(definition), true) => What::Definition(definition),
        (None, true) => return Ok(None),
        (None, false) => What::Frontend {
            name: request.frontend,
            attrs: request.frontend_opt.into_iter().collect(),
            inputs: request.frontend_inputs.into_iter().collect(),
        },
    };
    Ok(Some(SolveInput {
        what,
        evaluate: request.evaluate,
    }))
}

/// The one reference, for clients of before results had several.
fn default_ref(result: &Result_) -> Result<String, Status> {
    match &result.result {
        Some(result::Result::Ref(reference)) => Ok(reference.id.clone()),
        Some(result::Result::RefDeprecated(id)) => Ok(id.clone()),
        None => Ok(String::new()),
        Some(_) => Err(Status::invalid_argument(
            "solve did not return default result",
        )),
    }
}

/// The part of a file that is asked for.
pub(crate) fn byte_range(range: Option<FileRange>) -> Result<ByteRange, Status> {
    let range = range.unwrap_or_default();
    let number = |value: i64| {
        u64::try_from(value).map_err(|_| Status::invalid_argument("a negative file range"))
    };
    let (offset, length) = (number(range.offset)?, number(range.length)?);
    // One byte more than fits, so that a file which is too large shows.
    Ok(ByteRange {
        offset,
        length: if length == 0 {
            LARGEST_READ + 1
        } else {
            length.min(LARGEST_READ + 1)
        },
    })
}
