//! The service `moby.buildkit.v1.Control`.

use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1::control_server::Control;
use bollard_buildkit_proto::moby::buildkit::v1::{
    BuildHistoryEvent, BuildHistoryRequest, BytesMessage, DiskUsageRequest, DiskUsageResponse,
    InfoRequest, InfoResponse, ListWorkersRequest, ListWorkersResponse, PruneRequest, SolveRequest,
    SolveResponse, StatusRequest, StatusResponse, UpdateBuildHistoryRequest,
    UpdateBuildHistoryResponse, UsageRecord,
};
use buildyard_session::Attached;
use futures::StreamExt;
use futures::stream::{BoxStream, Iter};
use tonic::{Request, Response, Status, Streaming};

use super::{Api, errors, workers};
use crate::backend::BuildError;

/// A client asks for the status beside its solve, which waits for the session first.
const BUILD_WITHIN: Duration = Duration::from_secs(15);

#[tonic::async_trait]
impl Control for Api {
    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        Ok(Response::new(InfoResponse {
            buildkit_version: Some(workers::version()),
        }))
    }

    async fn list_workers(
        &self,
        _: Request<ListWorkersRequest>,
    ) -> Result<Response<ListWorkersResponse>, Status> {
        let record = vec![workers::record(self.0.backend.worker())];
        Ok(Response::new(ListWorkersResponse { record }))
    }

    type SessionStream = Attached;

    async fn session(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Attached>, Status> {
        let (metadata, _, incoming) = request.into_parts();
        let attached = self.0.sessions.attach(&metadata, incoming);
        attached
            .map(Response::new)
            .map_err(|err| errors::to_status(&BuildError::from(err)))
    }

    async fn solve(
        &self,
        request: Request<SolveRequest>,
    ) -> Result<Response<SolveResponse>, Status> {
        let response = Api::solve(self, request.into_inner()).await?;
        Ok(Response::new(SolveResponse {
            exporter_response: response.into_iter().collect(),
        }))
    }

    type StatusStream = BoxStream<'static, Result<StatusResponse, Status>>;

    async fn status(
        &self,
        request: Request<StatusRequest>,
    ) -> Result<Response<Self::StatusStream>, Status> {
        let found = self
            .0
            .builds
            .get(&request.into_inner().r#ref, BUILD_WITHIN)
            .await;
        let running = found?;
        Ok(Response::new(
            running.build.progress.subscribe().map(Ok).boxed(),
        ))
    }

    async fn disk_usage(
        &self,
        request: Request<DiskUsageRequest>,
    ) -> Result<Response<DiskUsageResponse>, Status> {
        let records = self.0.backend.disk_usage(request.into_inner()).await;
        let record = records?;
        Ok(Response::new(DiskUsageResponse { record }))
    }

    type PruneStream = Iter<std::vec::IntoIter<Result<UsageRecord, Status>>>;

    async fn prune(
        &self,
        request: Request<PruneRequest>,
    ) -> Result<Response<Self::PruneStream>, Status> {
        let removed = self.0.backend.prune(request.into_inner()).await;
        let removed = removed?;
        Ok(Response::new(futures::stream::iter(
            removed.into_iter().map(Ok).collect::<Vec<_>>(),
        )))
    }

    type ListenBuildHistoryStream = BoxStream<'static, Result<BuildHistoryEvent, Status>>;

    async fn listen_build_history(
        &self,
        _: Request<BuildHistoryRequest>,
    ) -> Result<Response<Self::ListenBuildHistoryStream>, Status> {
        Err(Status::unimplemented(
            "this builder does not offer its history to BuildKit clients; use `buildyard builds`",
        ))
    }

    async fn update_build_history(
        &self,
        _: Request<UpdateBuildHistoryRequest>,
    ) -> Result<Response<UpdateBuildHistoryResponse>, Status> {
        Err(Status::unimplemented(
            "this builder does not offer its history to BuildKit clients; use `buildyard builds`",
        ))
    }
}
