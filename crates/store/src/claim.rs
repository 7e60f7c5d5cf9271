//! The right to run a step (invariant 4: at most one valid claim in the whole farm per key and scope).
//!
//! A claim's life:
//!
//! ```text
//!   claim_step ─► held ──complete──► its result is recorded
//!                  │ └───release───► nothing is recorded (the step failed, or nobody wants it any more)
//!                  └─ time passes or its worker is lost ─► lapsed ──renew (nobody else asked)──► held
//!                                                            └─────claim_step of another──────► given away
//! ```
//!
//! Whoever holds a claim that was given away gets [`Completion::Stale`] and is told so by [`Claims::renew`].

use std::time::Duration;

use async_trait::async_trait;
use buildyard_model::{BuildId, JobId, Scope, StepDigest, StepKey, WorkerId};

use crate::{LayerRecord, StepResult, StoreError, UnixMillis};

/// What can be claimed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClaimKey {
    /// The step's key.
    pub key: StepKey,
    /// Who may see the result.
    pub scope: Scope,
    /// `Some` under `--no-cache`: the step is run anew for this build, once, whatever is stored.
    pub only_for: Option<BuildId>,
}

impl ClaimKey {
    /// The claim that every build shares.
    pub fn shared(key: StepKey, scope: Scope) -> Self {
        Self {
            key,
            scope,
            only_for: None,
        }
    }
}

/// The number of a claim. It grows with every claim given in the farm, so also for each key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

/// Who asks for a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedBy {
    /// The worker that will run the step.
    pub worker: WorkerId,
    /// The job that it belongs to there.
    pub job: JobId,
    /// The build of that job.
    pub build: BuildId,
    /// The step of that build's graph.
    pub step: StepDigest,
}

/// The answer to a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// Run it; show this number with everything about it.
    Run {
        /// The claim's number.
        generation: Generation,
    },
    /// Here is its result. Boxed: it is much larger than the others.
    Done(Box<StepResult>),
    /// Somebody is running it: wait, and claim again when it ends or lapses.
    Held {
        /// Who.
        by: ClaimedBy,
        /// Their claim's number.
        generation: Generation,
        /// When it lapses, unless it is renewed.
        until: UnixMillis,
    },
}

/// A claim as its holder shows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HeldClaim {
    /// What is claimed.
    pub claim: ClaimKey,
    /// The claim's number.
    pub generation: Generation,
}

/// A claim that is free for whoever asks next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lapsed {
    /// What was claimed, and its number.
    pub held: HeldClaim,
    /// By whom.
    pub by: ClaimedBy,
}

/// Whether a result was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completion {
    /// It is the recorded result.
    Accepted,
    /// The claim was given away or is gone: drop the result.
    Stale,
}

/// Claims on steps.
#[async_trait]
pub trait Claims: Send + Sync {
    /// Asks for the right to run a step. The shared result, if there is one, comes first; under `only_for` only a
    /// result made for that very build counts. A claim that has lapsed at `now` is given to the asker with a new
    /// number. Who asks again for what it holds (same worker, job and step: a lost answer) gets the same number.
    async fn claim_step(
        &self,
        claim: &ClaimKey,
        by: &ClaimedBy,
        now: UnixMillis,
        ttl: Duration,
    ) -> Result<Claim, StoreError>;

    /// Prolongs `worker`'s claims to `now + ttl`, also lapsed ones that nobody else has asked for. Returns those that
    /// are lost: stop running these.
    async fn renew(
        &self,
        worker: &WorkerId,
        held: &[HeldClaim],
        now: UnixMillis,
        ttl: Duration,
    ) -> Result<Vec<HeldClaim>, StoreError>;

    /// Records a step's result, with the `layers` that are new in it as [`Layers::put_layers`](crate::Layers::put_layers) does,
    /// and ends its claim. `result.worker` must be the claim's. Under `only_for` the result is also the shared one from now on.
    /// Repeating it after a lost answer is `Accepted` again. Nothing is recorded of what is `Stale`.
    async fn complete(
        &self,
        held: &HeldClaim,
        result: &StepResult,
        layers: &[LayerRecord],
        now: UnixMillis,
    ) -> Result<Completion, StoreError>;

    /// Ends a claim without a result. Returns whether it was still the holder's.
    async fn release(&self, held: &HeldClaim) -> Result<bool, StoreError>;

    /// The claims that have lapsed at `now` and were not reported before, for waking those who wait. Removes claims
    /// that lapsed before `forget_before`: their workers will not come back.
    async fn expire(
        &self,
        now: UnixMillis,
        forget_before: UnixMillis,
    ) -> Result<Vec<Lapsed>, StoreError>;

    /// The worker is out of reach: its claims lapse now. They stay renewable until somebody else asks.
    async fn release_worker(
        &self,
        worker: &WorkerId,
        now: UnixMillis,
    ) -> Result<Vec<Lapsed>, StoreError>;
}
