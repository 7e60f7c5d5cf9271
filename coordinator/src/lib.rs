//! The coordinator: the endpoint that clients and workers talk to.
//!
//! [`api`] speaks BuildKit's gRPC API and hands what is to be built to a [`backend::Backend`]; [`progress`] is where a
//! build's steps, logs and warnings are told and watched. [`endpoint`] listens.

pub mod api;
pub mod backend;
pub mod endpoint;
pub mod progress;
