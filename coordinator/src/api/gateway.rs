//! The service `moby.buildkit.v1.frontend.LLBBridge`, through which a client drives its build.
//!
//! Each call names its build in the metadata. Containers (`NewContainer` and what belongs to it) are not offered.

use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_server::LlbBridge;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::{
    EvaluateRequest, EvaluateResponse, ExecMessage, InputsRequest, InputsResponse,
    NewContainerRequest, NewContainerResponse, PingRequest, PongResponse, ReadDirRequest,
    ReadDirResponse, ReadFileRequest, ReadFileResponse, ReleaseContainerRequest,
    ReleaseContainerResponse, ResolveImageConfigRequest, ResolveImageConfigResponse,
    ResolveSourceImageResponse, ResolveSourceMetaRequest, ResolveSourceMetaResponse, ReturnRequest,
    ReturnResponse, SolveRequest, SolveResponse, StatFileRequest, StatFileResponse, WarnRequest,
    WarnResponse,
};
use bollard_buildkit_proto::pb;
use futures::stream::Pending;
use tonic::{Request, Response, Status, Streaming};

use super::bridge::{LARGEST_READ, byte_range};
use super::{Api, capabilities, errors, workers};
use crate::backend::ImageQuery;
use crate::progress::Warning;

const IMAGE: &str = "docker-image://";

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
            (None, Some(result)) => Ok(running.resolve(result)?),
            (None, None) => {
                return Err(Status::invalid_argument(
                    "return either a result or an error",
                ));
            }
        };
        running.set_returned(outcome)?;
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
        let reference = running.find(&request.into_inner().r#ref)?;
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
        let reference = running.find(&request.r#ref)?;
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
        let reference = running.find(&request.r#ref)?;
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
        let reference = running.find(&request.r#ref)?;
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
