//! Running one container for one step.
//!
//! A [`Runner`] takes a [`ContainerSpec`] (what to mount, what to start, with which rights) and runs it to its end. It
//! knows nothing of LLB, caches or layers: `exec` makes the specification. [`Native`] does it by itself, [`OciRuntime`] with
//! `runc` (or another program with its command line); [`Runners`] says who runs which step.
//!
//! What holds for every run, however it ends (exit, cancellation, a dropped future, a panic): no process of the container
//! and no mount is left, and what the step wrote stays in its upper directory.

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

mod cgroup;
mod choice;
mod config;
#[cfg(test)]
mod dispatch;
#[cfg(test)]
mod frozen;
mod native;
mod oci;
mod output;
#[cfg(test)]
mod outside;
mod prepare;
pub(crate) mod private;
#[cfg(test)]
mod probe;
#[cfg(test)]
mod same;
mod scoped;
mod seccomp;
mod spec;
mod stage;
#[cfg(test)]
mod suite;
mod supervise;
#[cfg(test)]
mod tests;

pub(crate) use cgroup::check_memory_groups;
pub use choice::{RunnerChoice, Runners};
pub use config::DEFAULT_CAPABILITIES;
pub use native::{Native, STEP_HELPER, step_helper};
pub use oci::{OciRuntime, OciRuntimeConfig};
pub use output::{Chunk, OutputLimits, StepIo, Stream};
pub use spec::{
    ContainerMount, ContainerSource, ContainerSpec, IdMapping, Limits, Process, Rlimit, Security,
    User, UserNamespace,
};

/// Runs containers.
#[async_trait]
pub trait Runner: Send + Sync {
    /// Runs a container to its end. When `cancel` fires, or the future is dropped, the container is killed; in the
    /// first case the answer is [`Exit::Cancelled`].
    ///
    /// # Errors
    /// When the container could not be started. That a command failed is an [`Exit`].
    async fn run(
        &self,
        spec: ContainerSpec,
        io: StepIo,
        cancel: CancellationToken,
    ) -> Result<Ran, RunnerError>;
}

/// What became of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// How it ended.
    pub exit: Exit,
    /// The last output, at most 8 KiB, also where the log was clipped.
    pub tail: Vec<u8>,
    /// Mount points that did not exist in the root file system; they have been removed again where nothing was put there.
    pub stubs: Vec<Vec<u8>>,
}

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The command ended by itself or by a signal, then with 128 + the signal's number.
    Code(i32),
    /// The kernel killed a process of the container because memory ran out, and the command failed.
    OutOfMemory {
        /// With this exit code.
        code: i32,
    },
    /// It was told to stop.
    Cancelled,
}

/// Why a container could not be run.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// The runtime could not start the container; what it says often lies in the image (no such program).
    #[error("starting the container: {0}")]
    Start(String),
    /// The container's mounts or files could not be made.
    #[error("{what}")]
    Prepare {
        /// What was tried, on what.
        what: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The runtime program is missing or does not run.
    #[error("running {program:?}: is it installed and on the PATH?")]
    Program {
        /// The program.
        program: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The network that the step asked for cannot be had.
    #[error("setting up the step's network")]
    Network(#[from] crate::network::NetworkError),
    /// The runner is closing or its thread died.
    #[error("the container was abandoned: {0}")]
    Abandoned(String),
}

impl RunnerError {
    pub(crate) fn prepare(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Prepare { what, source }
    }
}
