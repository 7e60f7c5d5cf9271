//! How patient the scheduler is.

use std::time::Duration;

/// How patient the scheduler is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// How many jobs a worker takes for each of its slots. Slots count steps: where a job's steps wait for those of others
    /// (of another platform, of another build), jobs must not keep each other out, and this is more than 1.
    pub jobs_per_slot: u32,
    /// So much of what lies on one worker's disk is remembered.
    pub max_held: usize,
    /// How long a job waits for known workers that are away before it runs emulated, or is refused.
    pub away_grace: Duration,
    /// How long a job waits for busy native workers before it runs emulated.
    pub busy_grace: Duration,
    /// After losing its worker so many times a job is refused.
    pub max_losses: u32,
    /// So many jobs may wait.
    pub max_waiting: usize,
    /// The coordinator runs jobs without a platform itself while no worker is connected.
    pub coordinator_runs: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            jobs_per_slot: 1,
            max_held: 1 << 16,
            away_grace: Duration::from_secs(60),
            busy_grace: Duration::from_secs(600),
            max_losses: 5,
            max_waiting: 10_000,
            coordinator_runs: true,
        }
    }
}
