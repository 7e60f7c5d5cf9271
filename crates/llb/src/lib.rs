//! The graph of a build.
//!
//! LLB is the one internal representation: every frontend and every raw client yields [`pb::Definition`]s. Here they become
//! one checked [`Graph`] in which equal operations are one step, whatever the number of definitions they came in with.
//! [`cut`] splits the steps that are missing into jobs, [`view`] says what a step sees of its inputs, and
//! [`key`] makes the operation's part of a cache key; [`build`] is how our own frontend makes definitions. Pure: no I/O, no clock.

pub mod build;
pub mod cut;
pub mod graph;
pub mod key;
pub mod view;

pub use bollard_buildkit_proto::pb;
pub use graph::{Graph, GraphError, Input, Limits, Step, StepName, Target};
