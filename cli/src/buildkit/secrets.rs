//! The session's secrets: read when a step asks, never kept.

use std::collections::BTreeMap;

use bollard_buildkit_proto::moby::buildkit::secrets::v1::secrets_server::Secrets;
use bollard_buildkit_proto::moby::buildkit::secrets::v1::{GetSecretRequest, GetSecretResponse};
use tonic::{Request, Response, Status};

use crate::request::{SecretSource, SecretSpec};

/// The largest secret, as BuildKit's.
const MAX_SECRET: u64 = 500 << 10;

/// Secrets by id.
#[derive(Debug, Default)]
pub struct SecretStore(BTreeMap<String, SecretSpec>);

impl SecretStore {
    /// The secrets that the command line names. Nothing is read yet.
    pub fn new(secrets: BTreeMap<String, SecretSpec>) -> Self {
        Self(secrets)
    }

    /// Looks at every source, so that a typing error is found before the build.
    ///
    /// # Errors
    /// A file that cannot be opened or is too large, a variable that is not set.
    pub fn check(&self) -> Result<(), String> {
        self.0
            .iter()
            .try_for_each(|(id, spec)| read(id, spec).map(drop))
    }
}

fn read(id: &str, spec: &SecretSpec) -> Result<Vec<u8>, String> {
    match &spec.source {
        SecretSource::Env(name) => match std::env::var_os(name) {
            Some(value) => Ok(std::os::unix::ffi::OsStringExt::into_vec(value)),
            None => Err(format!("secret {id:?}: the variable {name} is not set")),
        },
        SecretSource::File(path) => {
            let fail = |error| format!("secret {id:?}: cannot read {}: {error}", path.display());
            let size = std::fs::metadata(path).map_err(fail)?.len();
            if size > MAX_SECRET {
                return Err(format!(
                    "secret {id:?}: {} has {size} bytes, at most {MAX_SECRET} are allowed",
                    path.display()
                ));
            }
            std::fs::read(path).map_err(fail)
        }
    }
}

#[tonic::async_trait]
impl Secrets for SecretStore {
    async fn get_secret(
        &self,
        request: Request<GetSecretRequest>,
    ) -> Result<Response<GetSecretResponse>, Status> {
        let id = request.into_inner().id;
        let spec = self.0.get(&id).ok_or_else(|| {
            Status::not_found(format!("secret {id:?} was not given with --secret"))
        })?;
        let data = read(&id, spec).map_err(Status::failed_precondition)?;
        Ok(Response::new(GetSecretResponse { data }))
    }
}
