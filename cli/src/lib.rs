//! The command line of Buildyard: arguments, the client side of BuildKit's protocol, progress, and the farm's tables.
//!
//! What runs on a server (`coordinator`, `worker`) lives in the crates of those names; here are only their flags.

pub mod args;
pub mod builder_setup;
pub mod buildkit;
pub mod commands;
pub mod connect;
pub mod docker;
pub mod exit;
pub mod farm;
pub mod heap;
mod log;
pub mod progress;
pub mod request;
pub mod serve;
