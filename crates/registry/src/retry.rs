//! Trying again, a bounded number of times, what may go better the next time.

use std::future::Future;
use std::time::Duration;

use crate::RegistryError;

/// How often and how patiently. The wait doubles each time, up to `longest`, and varies by a quarter so that many
/// transfers don't come back at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Tries altogether, at least one.
    pub attempts: u32,
    /// Wait before the second try.
    pub first: Duration,
    /// The longest wait; also the most that a registry's `Retry-After` is heeded.
    pub longest: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 5,
            first: Duration::from_millis(200),
            longest: Duration::from_secs(10),
        }
    }
}

impl Retry {
    /// The wait after try number `tried` (from 1) failed with `error`; `None` where it isn't tried again.
    pub(crate) fn wait(&self, tried: u32, error: &RegistryError) -> Option<Duration> {
        if tried >= self.attempts || !error.is_transient() {
            return None;
        }
        let doubled = self
            .first
            .saturating_mul(1_u32.checked_shl(tried - 1).unwrap_or(u32::MAX));
        let asked = error.retry_after().unwrap_or_default();
        Some(doubled.max(asked).min(self.longest))
    }

    /// Does `step` until it succeeds, fails for good, or the tries are used up; the last error is the one returned.
    pub(crate) async fn run<T, F, Fut>(&self, mut step: F) -> Result<T, RegistryError>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, RegistryError>>,
    {
        let mut tried = 0;
        loop {
            let error = match step().await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            tried += 1;
            let Some(wait) = self.wait(tried, &error) else {
                return Err(error);
            };
            tracing::debug!(%error, tried, "registry request failed, trying again");
            tokio::time::sleep(vary(wait)).await;
        }
    }
}

/// Between three quarters of the wait and all of it.
pub(crate) fn vary(wait: Duration) -> Duration {
    wait.mul_f64(rand::random_range(0.75..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_end() {
        let retry = Retry {
            attempts: 6,
            first: Duration::from_secs(1),
            longest: Duration::from_secs(5),
        };
        let transient = RegistryError::Interrupted {
            what: "x".to_owned(),
            cause: "y".to_owned(),
        };
        let waits: Vec<_> = (1..=6)
            .map(|tried| retry.wait(tried, &transient).map(|wait| wait.as_secs()))
            .collect();
        assert_eq!(waits, [Some(1), Some(2), Some(4), Some(5), Some(5), None]);
        let lasting = RegistryError::NotFound {
            what: "x".to_owned(),
        };
        assert_eq!(retry.wait(1, &lasting), None);
    }

    #[test]
    fn a_registry_may_ask_for_a_longer_wait() {
        let retry = Retry {
            attempts: 3,
            first: Duration::from_secs(1),
            longest: Duration::from_secs(5),
        };
        let busy = |seconds| RegistryError::Refused {
            what: "x".to_owned(),
            status: 429,
            message: String::new(),
            retry_after: Some(Duration::from_secs(seconds)),
        };
        assert_eq!(retry.wait(1, &busy(3)), Some(Duration::from_secs(3)));
        assert_eq!(retry.wait(1, &busy(300)), Some(Duration::from_secs(5)));
    }
}
