//! Secrets and credentials on their way from a job's client to the worker that has the job, and to nobody else.

use std::sync::Arc;

use buildyard_model::JobId;
use buildyard_proto::v1 as proto;
use tonic::Status;

use super::Farm;
use super::job::Job;
use super::workers::Offer;

pub(super) async fn secret(
    farm: &Farm,
    worker: &Offer,
    request: proto::GetSecretRequest,
) -> Result<proto::GetSecretReply, Status> {
    let job = job_of(farm, worker, &request.job)?;
    let data = job.request.host.secret(&request.id).await?;
    Ok(proto::GetSecretReply {
        found: data.is_some(),
        data: data.unwrap_or_default().into(),
    })
}

pub(super) async fn credentials(
    farm: &Farm,
    worker: &Offer,
    request: proto::GetCredentialsRequest,
) -> Result<proto::GetCredentialsReply, Status> {
    let job = job_of(farm, worker, &request.job)?;
    let (username, secret) = job
        .request
        .host
        .credentials(&request.host)
        .await?
        .unwrap_or_default();
    Ok(proto::GetCredentialsReply { username, secret })
}

pub(super) async fn token(
    farm: &Farm,
    worker: &Offer,
    request: proto::GetTokenRequest,
) -> Result<proto::GetTokenReply, Status> {
    let job = job_of(farm, worker, &request.job)?;
    Ok(proto::GetTokenReply {
        token: job.request.host.token(request).await?,
    })
}

fn job_of(farm: &Farm, worker: &Offer, id: &str) -> Result<Arc<Job>, Status> {
    farm.job(&JobId::new(id))
        .filter(|job| job.is_on(&worker.id))
        .ok_or_else(|| {
            Status::permission_denied(format!("job {id} is not on worker {}", worker.id))
        })
}
