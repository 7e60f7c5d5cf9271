//! The farm's metadata: results of steps, claims, layers, builds, what takes room, settings, known workers.
//!
//! Each trait here is a family of **domain operations**, and each method is one transaction: it happens entirely or
//! not at all, whatever else runs beside it. A lost answer may be asked for again: every method that changes something
//! can be repeated with the same arguments and ends in the same state.
//!
//! Time comes in as an argument ([`UnixMillis`]); nothing here reads a clock or draws a random number.
//!
//! [`SqliteStore`] is the implementation; [`SqliteStore::in_memory`] is the one that tests use. There is no second,
//! hand-written store in memory: it would need the same suite and would prove less. `suite` is what every
//! implementation runs.
//!
//! This crate holds no bytes of layers (that is `cas`) and decides nothing about who runs what beyond claims (that is
//! `scheduler`).

mod build;
mod claim;
mod encoding;
mod error;
mod gc;
mod layer;
mod result;
mod settings;
mod sqlite;
#[cfg(test)]
mod suite;
mod time;
mod usage;
mod worker;

pub use build::{
    BuildId, BuildOutcome, BuildRecord, Builds, Finished, History, MAX_LOG_TEXT, PageStart,
    StepLog, StepRecord, TEXTS_CAP, cap_log,
};
pub use claim::{Claim, ClaimKey, ClaimedBy, Claims, Completion, Generation, HeldClaim, Lapsed};
pub use encoding::{Encoded, EncodingKey, Encodings};
pub use error::StoreError;
pub use gc::{GcPlan, InUse, is_needed, plan_gc};
pub use layer::{LayerRecord, Layers, MAX_SOURCES, Pulled, Source};
pub use result::{Results, StepResult};
pub use settings::Settings;
pub use sqlite::SqliteStore;
pub use time::UnixMillis;
pub use usage::{Candidate, Item, ItemKind, Referrer, Usage};
pub use worker::{WorkerRecord, Workers};

/// Everything a coordinator needs of its metadata, as one object: `Arc<dyn Store>`.
pub trait Store:
    Results
    + Claims
    + Layers
    + Encodings
    + Builds
    + History
    + Usage
    + Settings
    + Workers
    + std::fmt::Debug
{
}

impl<T> Store for T where
    T: Results
        + Claims
        + Layers
        + Encodings
        + Builds
        + History
        + Usage
        + Settings
        + Workers
        + std::fmt::Debug
{
}
