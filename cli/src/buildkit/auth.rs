//! Registry credentials for the farm, from Docker's `config.json` and its credential helpers, and tokens made with them.
//!
//! Nothing is cached: helpers may hand out short-lived credentials.

use bollard_buildkit_proto::moby::filesync::v1::auth_server::Auth;
use bollard_buildkit_proto::moby::filesync::v1::{
    CredentialsRequest, CredentialsResponse, FetchTokenRequest, FetchTokenResponse,
    GetTokenAuthorityRequest, GetTokenAuthorityResponse, VerifyTokenAuthorityRequest,
    VerifyTokenAuthorityResponse,
};
use docker_credential::{CredentialRetrievalError, DockerCredential};
use tonic::{Request, Response, Status};

use super::token::{self, Login};

/// Docker Hub's registry, and the key it has in `config.json`.
const HUB: [&str; 2] = ["registry-1.docker.io", "docker.io"];
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// The credentials of this user.
#[derive(Debug, Clone, Default)]
pub struct Credentials;

impl Credentials {
    /// The login for a registry's host; none if the user has none.
    async fn login(host: String) -> Result<Option<Login>, Status> {
        tokio::task::spawn_blocking(move || look_up(&host))
            .await
            .map_err(|_| Status::internal("the credential helper's thread ended early"))?
    }
}

fn look_up(host: &str) -> Result<Option<Login>, Status> {
    let key = if HUB.contains(&host) { HUB_KEY } else { host };
    match docker_credential::get_credential(key) {
        Ok(DockerCredential::IdentityToken(token)) => Ok(Some(Login {
            username: String::new(),
            secret: token,
        })),
        // Helpers give an identity token under this user name.
        Ok(DockerCredential::UsernamePassword(user, secret)) if user == "<token>" => {
            Ok(Some(Login {
                username: String::new(),
                secret,
            }))
        }
        Ok(DockerCredential::UsernamePassword(username, secret)) => {
            Ok(Some(Login { username, secret }))
        }
        Err(error) if is_absence(&error) => Ok(None),
        Err(error) => Err(Status::failed_precondition(format!(
            "cannot get credentials for {host}: {error}"
        ))),
    }
}

fn is_absence(error: &CredentialRetrievalError) -> bool {
    match error {
        CredentialRetrievalError::NoCredentialConfigured
        | CredentialRetrievalError::ConfigNotFound => true,
        CredentialRetrievalError::ConfigReadError => !config_exists(),
        CredentialRetrievalError::HelperFailure { stdout, stderr, .. } => {
            // The text is part of the helpers' protocol (docker-credential-helpers, credentials/error.go).
            [stdout, stderr]
                .iter()
                .any(|text| text.contains("credentials not found"))
        }
        _ => false,
    }
}

fn config_exists() -> bool {
    let dir = std::env::var_os("DOCKER_CONFIG").map(std::path::PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| std::path::Path::new(&home).join(".docker"));
    dir.or_else(home)
        .is_some_and(|dir| dir.join("config.json").exists())
}

#[tonic::async_trait]
impl Auth for Credentials {
    async fn credentials(
        &self,
        request: Request<CredentialsRequest>,
    ) -> Result<Response<CredentialsResponse>, Status> {
        let login = Self::login(request.into_inner().host)
            .await?
            .unwrap_or_default();
        Ok(Response::new(CredentialsResponse {
            username: login.username,
            secret: login.secret,
        }))
    }

    async fn fetch_token(
        &self,
        request: Request<FetchTokenRequest>,
    ) -> Result<Response<FetchTokenResponse>, Status> {
        let request = request.into_inner();
        let login = Self::login(request.host.clone()).await?;
        let token = token::fetch(&request, login.as_ref()).await?;
        Ok(Response::new(token))
    }

    async fn get_token_authority(
        &self,
        _: Request<GetTokenAuthorityRequest>,
    ) -> Result<Response<GetTokenAuthorityResponse>, Status> {
        Err(Status::unimplemented(
            "this client signs no token requests; use FetchToken",
        ))
    }

    async fn verify_token_authority(
        &self,
        _: Request<VerifyTokenAuthorityRequest>,
    ) -> Result<Response<VerifyTokenAuthorityResponse>, Status> {
        Err(Status::unimplemented(
            "this client signs no token requests; use FetchToken",
        ))
    }
}
