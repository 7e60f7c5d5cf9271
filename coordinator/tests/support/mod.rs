//! What the tests with real clients share: an engine that is a script, an endpoint, and buildx in a home of its own.

// Each test binary uses its own part of this.
#![allow(dead_code)]

pub(crate) mod buildx;
pub(crate) mod client;
pub(crate) mod endpoint;
pub(crate) mod engine;
pub(crate) mod pack;
