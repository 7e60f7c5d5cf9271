//! What a step sees of its inputs: merged trees, content ids, cache keys.
//!
//! Coordinator and worker compute the same keys with this crate: the coordinator in its walk over the graph before any
//! worker is asked, the worker for the steps whose inputs were not known before. Where the tables of contents come from is
//! behind [`Tocs`].

mod keys;
pub mod pull;
mod recent;
mod trees;

pub use keys::{KeyError, copy_source, key};
pub use recent::{RECENT_ENTRIES, RecentTocs};
pub use trees::{LAYERS_AT_ONCE, Tocs, TocsError, Trees};
