//! Runs the engine's calls in tasks of their own: a client that hangs up drops the call's future, and the engine must
//! not be dropped in the middle of what it does.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::{Shared, errors};
use crate::backend::BuildError;

/// How long a cancelled call may take to end on its own.
const GRACE: Duration = Duration::from_secs(20);

impl Shared {
    /// Runs `work` to its end, whatever becomes of the caller. When `cancel` is cancelled, the answer is "cancelled"
    /// and `work` has [`GRACE`] to end.
    pub(crate) async fn run<T, F>(&self, cancel: CancellationToken, work: F) -> Result<T, Status>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, BuildError>> + Send + 'static,
    {
        let task = self.tasks.spawn(until_cancelled(cancel, work));
        match task.await {
            Ok(outcome) => outcome.map_err(|err| errors::to_status(&self.why(err))),
            Err(err) => {
                tracing::error!(error = %err, "a call to the engine panicked");
                Err(Status::internal("the builder failed; its log says why"))
            }
        }
    }

    /// The error as it is told: a build that was given up because the coordinator stops is told so.
    pub(crate) fn why(&self, error: BuildError) -> BuildError {
        if error.is_cancelled() && self.cancel.is_cancelled() {
            BuildError::interrupted()
        } else {
            error
        }
    }
}

/// The outcome of `work`, or "cancelled" once `cancel` is.
pub(crate) async fn until_cancelled<T>(
    cancel: CancellationToken,
    work: impl Future<Output = Result<T, BuildError>>,
) -> Result<T, BuildError> {
    let mut work = std::pin::pin!(work);
    tokio::select! {
        outcome = &mut work => return outcome,
        () = cancel.cancelled() => {}
    }
    match tokio::time::timeout(GRACE, work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(err)) if err.code == Code::Cancelled => Err(err),
        Ok(Err(_)) => Err(BuildError::cancelled()),
        Err(_) => {
            tracing::warn!("a cancelled call did not end in time and is dropped");
            Err(BuildError::cancelled())
        }
    }
}
