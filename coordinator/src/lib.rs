//! The coordinator.

pub mod endpoint;
