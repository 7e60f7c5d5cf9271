//! Secrets, asked of the client (`session/secrets` in BuildKit).

use bollard_buildkit_proto::moby::buildkit::secrets::v1::GetSecretRequest;
use bollard_buildkit_proto::moby::buildkit::secrets::v1::secrets_client::SecretsClient;
use tonic::Code;

use crate::{Session, SessionError};

const GET: &str = "/moby.buildkit.secrets.v1.Secrets/GetSecret";
/// BuildKit's limit (`session/secrets.MaxSecretSize`).
const LARGEST: usize = 500 * 1024;

impl Session {
    /// The secret `id`; `None` where the client has no secret of that name, or none at all. Whether that is an error
    /// is the step's to say (`required`).
    pub async fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, SessionError> {
        if !self.supports(GET) {
            return Ok(None);
        }
        let mut client = SecretsClient::new(self.channel()).max_decoding_message_size(2 * LARGEST);
        let request = GetSecretRequest {
            id: id.to_owned(),
            ..Default::default()
        };
        let doing = format!("asking the client for the secret {id:?}");
        match self.call(&doing, client.get_secret(request)).await {
            Ok(answer) => Some(answer.into_inner().data)
                .map(|data| within_limit(id, data))
                .transpose(),
            Err(err) if matches!(err.code(), Some(Code::NotFound | Code::Unimplemented)) => {
                Ok(None)
            }
            Err(err) => Err(err),
        }
    }
}

fn within_limit(id: &str, data: Vec<u8>) -> Result<Vec<u8>, SessionError> {
    if data.len() <= LARGEST {
        return Ok(data);
    }
    let size = data.len();
    let status = tonic::Status::out_of_range(format!(
        "it has {size} bytes, at most {LARGEST} are allowed"
    ));
    Err(SessionError::refused(
        format!("taking the secret {id:?}"),
        status,
    ))
}
