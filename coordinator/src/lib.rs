//! The coordinator: the endpoint that clients and workers talk to.
//!
//! [`api`] speaks BuildKit's gRPC API and hands what is to be built to a [`backend::Backend`]; [`progress`] is where a
//! build's steps, logs and warnings are told and watched. [`engine`] is that backend: it walks graphs against the cache and
//! plans jobs, which [`farm`] hands to workers; [`layers`] holds what they make, [`keeper`] makes room for it; [`export`] assembles images.
//! [`endpoint`] listens.

pub mod api;
pub mod backend;
mod causes;
mod coordinator;
pub mod endpoint;
pub mod engine;
pub mod export;
pub mod farm;
pub mod keeper;
pub mod layers;
pub mod progress;
mod web;

pub use coordinator::{Coordinator, CoordinatorConfig};
