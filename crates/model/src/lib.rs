//! The words of the farm as types: digests, ids, platforms, chains of layers.
//!
//! Everything here is a plain value. Nothing reads a clock, a file or a socket.

pub mod api;
mod chain;
mod digest;
mod ids;
mod mark;
mod platform;

pub use chain::Chain;
pub use digest::{Digest, DigestHasher, ParseDigestError};
pub use ids::{
    BuildId, FlatId, JobId, LayerId, ParseFlatIdError, Scope, StepDigest, StepKey, WorkerId,
};
pub use mark::Mark;
pub use platform::{ParsePlatformError, Platform};
