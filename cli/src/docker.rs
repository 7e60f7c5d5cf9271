//! Loading an image into the Docker Engine of this machine (`--load`, `--output type=docker`).
//!
//! The engine is the one `DOCKER_HOST` names, else the usual socket; Docker's contexts are not looked at.

use bollard::Docker;
use bollard::query_parameters::ImportImageOptionsBuilder;
use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Why an image could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No engine answers.
    #[error(
        "cannot reach the Docker Engine to load the image: {0}; start it (or set DOCKER_HOST), or write a file with \
         --output type=docker,dest=image.tar"
    )]
    Unreachable(bollard::errors::Error),
    /// The engine refuses the image.
    #[error("the Docker Engine did not load the image: {0}")]
    Refused(bollard::errors::Error),
}

/// Checks that an engine answers, so that a build is not run in vain.
///
/// # Errors
/// None does.
pub async fn check_engine() -> Result<(), LoadError> {
    let docker = Docker::connect_with_defaults().map_err(LoadError::Unreachable)?;
    docker
        .ping()
        .await
        .map(drop)
        .map_err(LoadError::Unreachable)
}

/// Feeds an archive in `docker save` form to the engine. An error among the chunks ends the transfer.
///
/// # Errors
/// No engine answers, or it refuses the image.
pub async fn load_image(chunks: mpsc::Receiver<std::io::Result<Bytes>>) -> Result<(), LoadError> {
    let docker = Docker::connect_with_defaults().map_err(LoadError::Unreachable)?;
    let options = ImportImageOptionsBuilder::default().quiet(true).build();
    let mut answers =
        std::pin::pin!(docker.import_image_stream(options, ReceiverStream::new(chunks), None));
    while let Some(answer) = answers.next().await {
        answer.map_err(LoadError::Refused)?;
    }
    Ok(())
}
