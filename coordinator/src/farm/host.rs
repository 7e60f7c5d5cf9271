//! What a job asks of the build that it belongs to.

use async_trait::async_trait;
use buildyard_model::{Chain, LayerId, StepDigest, StepKey};
use buildyard_proto::v1 as proto;
use buildyard_store::Pulled;
use tonic::Status;

/// The build behind a job: where its steps' events go, and the client's secrets and credentials.
///
/// Secrets and credentials pass through; nothing here keeps them.
#[async_trait]
pub trait JobHost: Send + Sync {
    /// Something happened to a step. `worker` is where.
    fn step_event(&self, step: StepDigest, worker: &str, event: &proto::StepEvent);

    /// A worker has found out a step's key.
    fn keyed(&self, step: StepDigest, key: StepKey);

    /// These results must stay in the store as long as the build runs. `false`: they are being removed, so they count as
    /// gone.
    fn holds(&self, chains: &[Chain]) -> bool;

    /// What an image of the build says of a layer; `None` if none of them has it.
    fn layer_of_image(&self, layer: LayerId) -> Option<Pulled>;

    /// The client's secret of this id; `None` if it has none.
    async fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, Status>;

    /// User name and password for a registry; `None` if the client has none.
    async fn credentials(&self, host: &str) -> Result<Option<(String, String)>, Status>;

    /// A bearer token that the client got for a registry.
    async fn token(&self, request: proto::GetTokenRequest) -> Result<String, Status>;
}
