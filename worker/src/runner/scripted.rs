//! A runner that plays a part, for tests of what lies above: no container, no root, no kernel.

use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::spec::ContainerSpec;
use super::{Chunk, Exit, Ran, Runner, RunnerError, StepIo, Stream};

/// What a scripted container does.
type Part = Box<dyn Fn(&ContainerSpec) -> Result<(Exit, String), RunnerError> + Send + Sync>;

/// A runner that answers each container with the exit and output that a function gives, and remembers what it was asked.
///
/// Containers whose program is `wait` end only when they are cancelled.
pub struct Scripted {
    part: Part,
    seen: Mutex<Vec<ContainerSpec>>,
}

impl Scripted {
    /// A runner that plays `part`.
    pub fn new(
        part: impl Fn(&ContainerSpec) -> Result<(Exit, String), RunnerError> + Send + Sync + 'static,
    ) -> Self {
        Self {
            part: Box::new(part),
            seen: Mutex::default(),
        }
    }

    /// A runner whose containers all succeed without a word.
    pub fn succeeding() -> Self {
        Self::new(|_| Ok((Exit::Code(0), String::new())))
    }

    /// The specifications of all containers so far.
    pub fn seen(&self) -> Vec<ContainerSpec> {
        self.seen
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }
}

#[async_trait]
impl Runner for Scripted {
    async fn run(
        &self,
        spec: ContainerSpec,
        io: StepIo,
        cancel: CancellationToken,
    ) -> Result<Ran, RunnerError> {
        self.seen
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .push(spec.clone());
        if spec
            .process
            .args
            .first()
            .is_some_and(|program| program == "wait")
        {
            cancel.cancelled().await;
            return Ok(Ran {
                exit: Exit::Cancelled,
                tail: Vec::new(),
                stubs: Vec::new(),
            });
        }
        let (exit, output) = (self.part)(&spec)?;
        if !output.is_empty() {
            let chunk = Chunk {
                stream: Stream::Stdout,
                bytes: Bytes::from(output.clone()),
            };
            // A test that doesn't listen drops the receiver.
            let _ = io.output.send(chunk).await;
        }
        Ok(Ran {
            exit,
            tail: output.into_bytes(),
            stubs: Vec::new(),
        })
    }
}
