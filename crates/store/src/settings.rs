//! What is decided once for a farm.

use async_trait::async_trait;
use buildyard_model::Platform;

use crate::StoreError;

/// The farm's stored settings.
#[async_trait]
pub trait Settings: Send + Sync {
    /// BUILDPLATFORM (invariant 6): what is stored; on the first call `default` is.
    async fn build_platform(&self, default: &Platform) -> Result<Platform, StoreError>;

    /// Changes BUILDPLATFORM, when the operator says so.
    async fn set_build_platform(&self, platform: &Platform) -> Result<(), StoreError>;

    /// The farm's id: what is stored; on the first call `candidate` (a random text) is.
    async fn farm_id(&self, candidate: &str) -> Result<String, StoreError>;

    /// The version of the database's schema.
    async fn schema_version(&self) -> Result<i64, StoreError>;
}
