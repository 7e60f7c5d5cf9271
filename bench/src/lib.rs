//! `cargo xtask bench`: the same workloads through the reference engine and through ours, on one machine, in one run.
//!
//! [`args`] says what can be asked for, [`catalogue`] what there is, [`workloads`] how each is done, [`run`] in which order,
//! [`report`] what comes out. [`outside`] makes the place that everything happens in: name spaces of its own.
//!
//! Both engines get the very same commands of the real `docker buildx`; only the builder and the repository pushed to differ.
//! What a workload needs is made outside of the measured time, and so is a variation for each run, so that nothing is
//! cached that should not be.

#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sizes and counts are scaled by a factor, and shown with three digits"
)]

pub mod args;
mod binfmt;
mod case;
mod catalogue;
mod client;
mod disk;
mod engine;
mod files;
mod index;
mod machine;
pub mod outside;
mod processes;
mod relay;
pub mod report;
pub mod run;
mod site;
mod stats;
mod workloads;

pub use catalogue::{listing, selected};
