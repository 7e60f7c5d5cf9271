//! The service `moby.buildkit.v1.frontend.LLBBridge`, through which a client drives its build.
//!
//! Each call names its build in the metadata. Containers (`NewContainer` and what belongs to it) are not offered.

use std::sync::Arc;
use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_server::LlbBridge;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::{
    EvaluateRequest, EvaluateResponse, ExecMessage, FileRange, InputsRequest, InputsResponse,
    NewContainerRequest, NewContainerResponse, PingRequest, PongResponse, ReadDirRequest,
    ReadDirResponse, ReadFileRequest, ReadFileResponse, ReleaseContainerRequest,
    ReleaseContainerResponse, ResolveImageConfigRequest, ResolveImageConfigResponse,
    ResolveSourceImageResponse, ResolveSourceMetaRequest, ResolveSourceMetaResponse,
    Result as Result_, ReturnRequest, ReturnResponse, SolveRequest, SolveResponse, StatFileRequest,
    StatFileResponse, WarnRequest, WarnResponse, result,
};
use bollard_buildkit_proto::pb;
use futures::stream::Pending;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use super::running::Running;
use super::{Api, capabilities, errors, workers};
use crate::backend::{BuildError, ByteRange, ImageQuery, SolveInput, Solved, What};
use crate::progress::Warning;

const BUILD_ID: &str = "buildkit-controlapi-buildid";
/// The gateway's calls come beside the solve, which waits for the session first.
const BUILD_WITHIN: Duration = Duration::from_secs(15);
/// Largest file that a client may read in one call; the answer must fit a message.
const LARGEST_READ: u64 = 15 << 20;
const IMAGE: &str = "docker-image://";

impl Api {
    async fn running(&self, metadata: &MetadataMap) -> Result<Arc<Running>, Status> {
        let id = metadata
            .get(BUILD_ID)
            .and_then(|id| id.to_str().ok())
            .unwrap_or_default();
        if id.is_empty() {
            return Err(Status::invalid_argument(format!(
                "a gateway call needs its build's id in {BUILD_ID}"
            )));
        }
        let running = self
            .0
            .builds
            .get(id, BUILD_WITHIN)
            .await
            .map_err(|err| errors::to_status(&err))?;
        if running.build.progress.is_finished() {
            return Err(Status::failed_precondition(format!(
                "the build {id} has ended"
            )));
        }
        Ok(running)
    }

    async fn bridge_solve(
        &self,
        running: Arc<Running>,
        request: SolveRequest,
    ) -> Result<SolveResponse, Status> {
        let array_refs = request.allow_result_array_ref;
        let return_result = request.allow_result_return;
        let input = solve_input(request).map_err(|err| errors::to_status(&err))?;
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
        let result = running
            .publish(solved, array_refs)
            .map_err(|err| errors::to_status(&err))?;
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

    async fn bridge_resolve(
        &self,
        running: Arc<Running>,
        query: ImageQuery,
    ) -> Result<crate::backend::ResolvedConfig, Status> {
        let (shared, build) = (self.0.clone(), running.build.clone());
        let cancel = build.cancel.clone();
        self.0
            .run(cancel, async move {
                shared.backend.resolve_image(&build, query).await
            })
            .await
    }
}

#[tonic::async_trait]
impl LlbBridge for Api {
    async fn ping(&self, _: Request<PingRequest>) -> Result<Response<PongResponse>, Status> {
        Ok(Response::new(PongResponse {
            frontend_api_caps: capabilities::gateway(),
            llb_caps: capabilities::llb(),
            workers: vec![workers::record(self.0.backend.worker())],
        }))
    }

    async fn solve(
        &self,
        request: Request<SolveRequest>,
    ) -> Result<Response<SolveResponse>, Status> {
        let running = self.running(request.metadata()).await?;
        self.bridge_solve(running, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn r#return(
        &self,
        request: Request<ReturnRequest>,
    ) -> Result<Response<ReturnResponse>, Status> {
        let running = self.running(request.metadata()).await?;
        let request = request.into_inner();
        let outcome = match (request.error, request.result) {
            (Some(error), _) => Err(errors::from_rpc(error)),
            (None, Some(result)) => Ok(running
                .resolve(result)
                .map_err(|err| errors::to_status(&err))?),
            (None, None) => {
                return Err(Status::invalid_argument(
                    "return either a result or an error",
                ));
            }
        };
        running
            .set_returned(outcome)
            .map_err(|err| errors::to_status(&err))?;
        Ok(Response::new(ReturnResponse {}))
    }

    async fn inputs(
        &self,
        request: Request<InputsRequest>,
    ) -> Result<Response<InputsResponse>, Status> {
        let running = self.running(request.metadata()).await?;
        Ok(Response::new(InputsResponse {
            definitions: running.inputs.clone(),
        }))
    }

    async fn evaluate(
        &self,
        request: Request<EvaluateRequest>,
    ) -> Result<Response<EvaluateResponse>, Status> {
        let running = self.running(request.metadata()).await?;
        let reference = running
            .find(&request.into_inner().r#ref)
            .map_err(|err| errors::to_status(&err))?;
        let (shared, build) = (self.0.clone(), running.build.clone());
        let evaluate = async move { shared.backend.evaluate(&build, &reference).await };
        self.0.run(running.build.cancel.clone(), evaluate).await?;
        Ok(Response::new(EvaluateResponse {}))
    }

    async fn resolve_image_config(
        &self,
        request: Request<ResolveImageConfigRequest>,
    ) -> Result<Response<ResolveImageConfigResponse>, Status> {
        let running = self.running(request.metadata()).await?;
        let request = request.into_inner();
        if request.resolver_type != 0 {
            return Err(Status::unimplemented(
                "images of an OCI layout are not supported by this builder yet",
            ));
        }
        let query = ImageQuery {
            reference: request.r#ref,
            platform: request.platform,
            resolve_mode: request.resolve_mode,
            log_name: request.log_name,
        };
        let resolved = self.bridge_resolve(running, query).await?;
        let (digest, config, r#ref) = (resolved.digest, resolved.config, resolved.reference);
        Ok(Response::new(ResolveImageConfigResponse {
            digest,
            config,
            r#ref,
        }))
    }

    async fn resolve_source_meta(
        &self,
        request: Request<ResolveSourceMetaRequest>,
    ) -> Result<Response<ResolveSourceMetaResponse>, Status> {
        let running = self.running(request.metadata()).await?;
        let request = request.into_inner();
        let source = request
            .source
            .ok_or_else(|| Status::invalid_argument("source is required"))?;
        let Some(reference) = source.identifier.strip_prefix(IMAGE).map(str::to_owned) else {
            let scheme = source.identifier.split("://").next().unwrap_or_default();
            return Err(Status::unimplemented(format!(
                "{scheme} sources cannot be looked up by this builder yet"
            )));
        };
        let want_config = !request.image.as_ref().is_some_and(|image| image.no_config);
        let (platform, resolve_mode, log_name) =
            (request.platform, request.resolve_mode, request.log_name);
        let resolved = self
            .bridge_resolve(
                running,
                ImageQuery {
                    reference,
                    platform,
                    resolve_mode,
                    log_name,
                },
            )
            .await?;
        let config = if want_config {
            resolved.config
        } else {
            Vec::new()
        };
        Ok(Response::new(ResolveSourceMetaResponse {
            source: Some(pb::SourceOp {
                identifier: format!("{IMAGE}{}", resolved.reference),
                attrs: source.attrs,
            }),
            image: Some(ResolveSourceImageResponse {
                digest: resolved.digest,
                config,
                attestation_chain: None,
            }),
            ..Default::default()
        }))
    }

    async fn read_file(
        &self,
        request: Request<ReadFileRequest>,
    ) -> Result<Response<ReadFileResponse>, Status> {
        let running = self.running(request.metadata()).await?;
        let request = request.into_inner();
        let reference = running
            .find(&request.r#ref)
            .map_err(|err| errors::to_status(&err))?;
        let range = byte_range(request.range)?;
        let (shared, build) = (self.0.clone(), running.build.clone());
        let read = async move {
            shared
                .backend
                .read_file(&build, &reference, &request.file_path, Some(range))
                .await
        };
        let data = self.0.run(running.build.cancel.clone(), read).await?;
        if data.len() as u64 > LARGEST_READ {
            return Err(Status::out_of_range(format!(
                "at most {LARGEST_READ} bytes are read at once; ask for ranges"
            )));
        }
        Ok(Response::new(ReadFileResponse { data }))
    }

    async fn read_dir(
        &self,
        request: Request<ReadDirRequest>,
    ) -> Result<Response<ReadDirResponse>, Status> {
        let running = self.running(request.metadata()).await?;
        let request = request.into_inner();
        let reference = running
            .find(&request.r#ref)
            .map_err(|err| errors::to_status(&err))?;
        let (shared, build) = (self.0.clone(), running.build.clone());
        let list = async move {
            shared
                .backend
                .read_dir(
                    &build,
                    &reference,
                    &request.dir_path,
                    &request.include_pattern,
                )
                .await
        };
        let entries = self.0.run(running.build.cancel.clone(), list).await?;
        Ok(Response::new(ReadDirResponse { entries }))
    }

    async fn stat_file(
        &self,
        request: Request<StatFileRequest>,
    ) -> Result<Response<StatFileResponse>, Status> {
        let running = self.running(request.metadata()).await?;
        let request = request.into_inner();
        let reference = running
            .find(&request.r#ref)
            .map_err(|err| errors::to_status(&err))?;
        let (shared, build) = (self.0.clone(), running.build.clone());
        let stat = async move {
            shared
                .backend
                .stat_file(&build, &reference, &request.path)
                .await
        };
        let stat = self.0.run(running.build.cancel.clone(), stat).await?;
        Ok(Response::new(StatFileResponse { stat: Some(stat) }))
    }

    async fn warn(&self, request: Request<WarnRequest>) -> Result<Response<WarnResponse>, Status> {
        let running = self.running(request.metadata()).await?;
        let request = request.into_inner();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        running.build.progress.warn(Warning {
            vertex: request.digest.parse().ok(),
            level: request.level,
            short: text(request.short),
            detail: request.detail.into_iter().map(text).collect(),
            url: request.url,
            info: request.info,
            ranges: request.ranges,
        });
        Ok(Response::new(WarnResponse {}))
    }

    async fn new_container(
        &self,
        _: Request<NewContainerRequest>,
    ) -> Result<Response<NewContainerResponse>, Status> {
        Err(no_containers())
    }

    async fn release_container(
        &self,
        _: Request<ReleaseContainerRequest>,
    ) -> Result<Response<ReleaseContainerResponse>, Status> {
        Err(no_containers())
    }

    type ExecProcessStream = Pending<Result<ExecMessage, Status>>;

    async fn exec_process(
        &self,
        _: Request<Streaming<ExecMessage>>,
    ) -> Result<Response<Self::ExecProcessStream>, Status> {
        Err(no_containers())
    }

    async fn read_file_container(
        &self,
        _: Request<ReadFileRequest>,
    ) -> Result<Response<ReadFileResponse>, Status> {
        Err(no_containers())
    }

    async fn read_dir_container(
        &self,
        _: Request<ReadDirRequest>,
    ) -> Result<Response<ReadDirResponse>, Status> {
        Err(no_containers())
    }

    async fn stat_file_container(
        &self,
        _: Request<StatFileRequest>,
    ) -> Result<Response<StatFileResponse>, Status> {
        Err(no_containers())
    }
}

fn no_containers() -> Status {
    Status::unimplemented(
        "containers for debugging (gateway exec) are not supported by this builder",
    )
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

fn byte_range(range: Option<FileRange>) -> Result<ByteRange, Status> {
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
