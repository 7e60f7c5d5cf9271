//! What every way of running a container begins with: a thread whose mount namespace holds everything that is mounted for
//! it, and the configuration that says the rest.

use std::io;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;

use super::config::config;
use super::prepare::{self, Stubs};
use super::spec::ContainerSpec;
use super::{RunnerError, private};
use crate::network::Attachment;

/// A container that could be started: root and mounts are made in the calling thread's own mount namespace.
pub(super) struct Stage<'a> {
    /// The container's name.
    pub(super) id: &'a str,
    /// A directory in memory that nobody else sees.
    pub(super) dir: PathBuf,
    /// What the container is to be, in the terms of an OCI runtime.
    pub(super) config: Spec,
    /// Its network; it goes when this is dropped.
    pub(super) network: Attachment,
}

/// Makes a container ready, has `start` run it to its end, and removes what was made for it. To be called on a thread of
/// its own, which ends afterwards.
pub(super) fn on_stage<T>(
    steps: &Path,
    spec: &ContainerSpec,
    start: impl FnOnce(&Stage<'_>) -> Result<T, RunnerError>,
) -> Result<(T, Vec<Vec<u8>>), RunnerError> {
    private::enter().map_err(RunnerError::prepare(
        "entering a mount namespace for the step",
    ))?;
    let dir = StepDir::create(steps.join(&spec.id))?;
    let mounts = prepare::mounts(spec, &dir.0)?;
    let root = dir.0.join("root");
    let stubs = Stubs::find(&root, &mounts);
    prepare::working_directory(&root, &spec.process.cwd, &spec.process.user).map_err(
        RunnerError::prepare(format!(
            "creating the working directory {}",
            spec.process.cwd
        )),
    )?;
    let network = spec.network.attach(spec.user_namespace.as_ref())?;
    let config = config(spec, &root, &mounts, &network)
        .map_err(|error| RunnerError::Start(error.to_string()))?;
    let stage = Stage {
        id: &spec.id,
        dir: dir.0.clone(),
        config,
        network,
    };
    let ended = start(&stage)?;
    Ok((ended, stubs.remove()))
}

/// The directory that a step's mounts hang on. Outside of the step's mount namespace it is empty.
struct StepDir(PathBuf);

impl StepDir {
    fn create(path: PathBuf) -> Result<Self, RunnerError> {
        std::fs::create_dir(&path)
            .map_err(RunnerError::prepare(format!("creating {}", path.display())))?;
        Ok(Self(path))
    }
}

impl Drop for StepDir {
    fn drop(&mut self) {
        let gone = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
        let removed = gone
            .map_err(io::Error::from)
            .and_then(|()| std::fs::remove_dir(&self.0));
        if let Err(error) = removed {
            tracing::debug!(path = %self.0.display(), %error, "a step's directory stays until the worker starts again");
        }
    }
}
