//! `grpc.health.v1.Health`, which BuildKit's session manager asks now and then: always serving.

use std::task::{Context, Poll};

use bollard_buildkit_proto::health::health_check_response::ServingStatus;
use bollard_buildkit_proto::health::{HealthCheckRequest, HealthCheckResponse};
use futures::future::BoxFuture;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic_prost::ProstCodec;
use tower::Service;

use super::session::Never;

/// The service.
#[derive(Debug, Clone, Copy)]
pub(super) struct HealthService;

impl NamedService for HealthService {
    const NAME: &'static str = "grpc.health.v1.Health";
}

struct Check;

impl UnaryService<HealthCheckRequest> for Check {
    type Response = HealthCheckResponse;
    type Future = std::future::Ready<Result<tonic::Response<HealthCheckResponse>, tonic::Status>>;

    fn call(&mut self, _: tonic::Request<HealthCheckRequest>) -> Self::Future {
        std::future::ready(Ok(tonic::Response::new(HealthCheckResponse {
            status: ServingStatus::Serving.into(),
        })))
    }
}

impl Service<http::Request<Body>> for HealthService {
    type Response = http::Response<Body>;
    type Error = Never;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            if !request.uri().path().ends_with("/Check") {
                return Ok(tonic::Status::unimplemented("only Check is served").into_http());
            }
            Ok(Grpc::new(ProstCodec::default()).unary(Check, request).await)
        })
    }
}
