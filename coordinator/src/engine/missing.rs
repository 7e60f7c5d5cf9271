//! Saying what is missing when a step asks for a path that is not there.

use buildyard_layer::{Patterns, SelectError, why_excluded};
use buildyard_model::Chain;
use buildyard_solver::KeyError;
use tonic::Code;

use super::evaluate::Evaluation;
use crate::backend::BuildError;

impl Evaluation<'_> {
    /// The error for a step whose key cannot be computed: BuildKit's text, and whether an ignore file is the reason.
    pub(super) async fn key_error(
        &self,
        number: usize,
        inputs: &[Chain],
        error: KeyError,
    ) -> BuildError {
        let step = self.graph.step(number);
        let error = match error {
            KeyError::Select(error) => {
                let hint = missing_path(&error)
                    .and_then(|path| self.excluded(&path))
                    .unwrap_or_default();
                BuildError::failed(KeyError::missing_text(&error, inputs) + &hint)
            }
            KeyError::Tocs(error) => {
                BuildError::new(Code::Internal, crate::causes::with_causes(&error))
            }
        };
        error.at_step(step.digest)
    }

    fn excluded(&self, path: &str) -> Option<String> {
        let ignore = self
            .state
            .ignore
            .lock()
            .expect("nobody panics while holding it")
            .clone();
        let patterns = Patterns::new(&ignore).ok()?;
        let (_, pattern) = why_excluded(path.trim_start_matches('/').as_bytes(), &patterns)?;
        Some(format!(
            " ({path} is excluded by the pattern {pattern:?} of .dockerignore)"
        ))
    }
}

fn missing_path(error: &SelectError) -> Option<String> {
    match error {
        SelectError::NotFound { path } => Some(path.clone()),
        SelectError::NoMatch { pattern } => Some(pattern.clone()),
        _ => None,
    }
}
