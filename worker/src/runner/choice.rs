//! Which runner a step gets.

use std::path::Path;
use std::str::FromStr;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::native::Native;
use super::spec::ContainerSpec;
use super::{OciRuntime, OciRuntimeConfig, Ran, Runner, RunnerError, StepIo};

/// The runtime program that is used where none is named.
const PROGRAM: &str = "runc";

/// What an operator asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum RunnerChoice {
    /// The worker's own where it works, else `runc`.
    #[default]
    Auto,
    /// The worker's own, and nothing starts where it does not work.
    Native,
    /// This OCI runtime program.
    Program(String),
}

impl FromStr for RunnerChoice {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "auto" => Self::Auto,
            "native" => Self::Native,
            program => Self::Program(program.to_owned()),
        })
    }
}

/// The runners of a worker. Each step gets the first one that can run it.
pub struct Runners {
    native: Option<Native>,
    oci: Option<(OciRuntime, String)>,
}

impl Runners {
    /// Opens what is asked for, in `dir`. Blocks.
    ///
    /// # Errors
    /// No runner works here.
    pub fn open(choice: &RunnerChoice, dir: &Path) -> Result<Self, RunnerError> {
        let native = || Native::open(&dir.join("native"));
        let oci = |program: &str| {
            let config = OciRuntimeConfig {
                program: program.to_owned(),
                dir: dir.to_owned(),
            };
            OciRuntime::open(config).map(|runtime| Some((runtime, program.to_owned())))
        };
        let runners = match choice {
            RunnerChoice::Program(program) => Self {
                native: None,
                oci: oci(program)?,
            },
            // Steps in a user namespace still need a runtime program.
            RunnerChoice::Native => Self {
                native: Some(native()?),
                oci: oci(PROGRAM).unwrap_or(None),
            },
            RunnerChoice::Auto => match native() {
                Ok(native) => Self {
                    native: Some(native),
                    oci: oci(PROGRAM).unwrap_or(None),
                },
                Err(error) => {
                    tracing::info!(
                        error = &error as &dyn std::error::Error,
                        "the native runner does not work here"
                    );
                    Self {
                        native: None,
                        oci: oci(PROGRAM)?,
                    }
                }
            },
        };
        tracing::info!(runner = runners.describe(), "steps are run by");
        Ok(runners)
    }

    /// Whether a step can run in a user namespace.
    pub fn enters_user_namespaces(&self) -> bool {
        self.oci.is_some()
    }

    /// In a few words, for people: `native, runc in user namespaces`.
    pub fn describe(&self) -> String {
        match (&self.native, &self.oci) {
            (Some(_), Some((_, program))) => format!("native, {program} in user namespaces"),
            (Some(_), None) => "native".to_owned(),
            (None, Some((_, program))) => program.clone(),
            (None, None) => "none".to_owned(),
        }
    }

    /// Kills what runs and waits until nothing is left.
    pub async fn close(&self) {
        if let Some(native) = &self.native {
            native.close().await;
        }
        if let Some((oci, _)) = &self.oci {
            oci.close().await;
        }
    }
}

#[async_trait]
impl Runner for Runners {
    async fn run(
        &self,
        spec: ContainerSpec,
        io: StepIo,
        cancel: CancellationToken,
    ) -> Result<Ran, RunnerError> {
        match (&self.native, &self.oci) {
            (Some(native), _) if spec.user_namespace.is_none() => {
                native.run(spec, io, cancel).await
            }
            (_, Some((oci, _))) => oci.run(spec, io, cancel).await,
            _ => Err(RunnerError::Start(format!(
                "the step needs a user namespace, and with it the program {PROGRAM}, which is not installed"
            ))),
        }
    }
}
