//! `buildyard.v1.Farm`: the worker protocol as a gRPC service. Each method finds out which worker calls and hands over.

use std::pin::Pin;
use std::sync::Arc;

use buildyard_proto::SESSION_METADATA;
use buildyard_proto::v1::farm_server::Farm as FarmRpc;
use buildyard_proto::v1::{self as proto};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::workers::Offer;
use super::{Farm, attach, flats, secrets, steps};

/// Largest message of the worker protocol: a layer's TOC travels in one.
pub const MAX_MESSAGE_BYTES: usize = 256 << 20;

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct FarmService(Arc<Farm>);

impl FarmService {
    /// The service of this farm.
    pub fn new(farm: Arc<Farm>) -> Self {
        Self(farm)
    }

    fn worker<T>(&self, request: &Request<T>) -> Result<Offer, Status> {
        let session = request
            .metadata()
            .get(SESSION_METADATA)
            .and_then(|value| value.to_str().ok());
        let session =
            session.ok_or_else(|| Status::unauthenticated("the call carries no worker session"))?;
        self.0
            .workers
            .by_session(session)
            .ok_or_else(|| Status::unavailable("this worker is not attached; attach first"))
    }
}

#[tonic::async_trait]
impl FarmRpc for FarmService {
    type AttachStream = attach::Orders;
    type ReadFlatStream = Pin<Box<dyn Stream<Item = Result<proto::FlatChunk, Status>> + Send>>;

    async fn attach(
        &self,
        request: Request<Streaming<proto::FromWorker>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        Ok(Response::new(
            attach::attach(&self.0, request.into_inner()).await?,
        ))
    }

    async fn claim(
        &self,
        request: Request<proto::ClaimRequest>,
    ) -> Result<Response<proto::ClaimReply>, Status> {
        let worker = self.worker(&request)?;
        let answer = steps::claim(&self.0, &worker, request.into_inner()).await?;
        Ok(Response::new(proto::ClaimReply {
            answer: Some(answer),
        }))
    }

    async fn complete(
        &self,
        request: Request<proto::CompleteRequest>,
    ) -> Result<Response<proto::CompleteReply>, Status> {
        let worker = self.worker(&request)?;
        Ok(Response::new(
            steps::complete(&self.0, &worker, request.into_inner()).await?,
        ))
    }

    async fn get_layers(
        &self,
        request: Request<proto::GetLayersRequest>,
    ) -> Result<Response<proto::GetLayersReply>, Status> {
        self.worker(&request)?;
        Ok(Response::new(
            flats::get_layers(&self.0, request.into_inner()).await?,
        ))
    }

    async fn put_pulled_layer(
        &self,
        request: Request<proto::PutPulledLayerRequest>,
    ) -> Result<Response<proto::PutPulledLayerReply>, Status> {
        let worker = self.worker(&request)?;
        flats::put_pulled(&self.0, &worker, request.into_inner()).await?;
        Ok(Response::new(proto::PutPulledLayerReply {}))
    }

    async fn read_flat(
        &self,
        request: Request<proto::ReadFlatRequest>,
    ) -> Result<Response<Self::ReadFlatStream>, Status> {
        self.worker(&request)?;
        Ok(Response::new(Box::pin(
            flats::read(&self.0, request.into_inner()).await?,
        )))
    }

    async fn write_flat(
        &self,
        request: Request<Streaming<proto::WriteFlatRequest>>,
    ) -> Result<Response<proto::WriteFlatReply>, Status> {
        let worker = self.worker(&request)?;
        flats::write(&self.0, &worker, request.into_inner()).await?;
        Ok(Response::new(proto::WriteFlatReply {}))
    }

    async fn get_secret(
        &self,
        request: Request<proto::GetSecretRequest>,
    ) -> Result<Response<proto::GetSecretReply>, Status> {
        let worker = self.worker(&request)?;
        Ok(Response::new(
            secrets::secret(&self.0, &worker, request.into_inner()).await?,
        ))
    }

    async fn get_credentials(
        &self,
        request: Request<proto::GetCredentialsRequest>,
    ) -> Result<Response<proto::GetCredentialsReply>, Status> {
        let worker = self.worker(&request)?;
        Ok(Response::new(
            secrets::credentials(&self.0, &worker, request.into_inner()).await?,
        ))
    }

    async fn get_token(
        &self,
        request: Request<proto::GetTokenRequest>,
    ) -> Result<Response<proto::GetTokenReply>, Status> {
        let worker = self.worker(&request)?;
        Ok(Response::new(
            secrets::token(&self.0, &worker, request.into_inner()).await?,
        ))
    }
}
