//! The farm's own protocol, `buildyard.v1`, between the coordinator and its workers.
//!
//! `buildyard/v1/farm.proto` is the source; `generated/` is made from it by `cargo xtask proto` and checked to be up to date.

mod result;

pub use result::{decode_result, encode_result};

/// Messages and services of `buildyard.v1`.
#[allow(missing_docs, clippy::all, unreachable_pub, unused_qualifications)]
pub mod v1 {
    include!("generated/buildyard.v1.rs");
}

/// Metadata key that carries the worker's session on every call beside `Attach`.
pub const SESSION_METADATA: &str = "buildyard-session";
