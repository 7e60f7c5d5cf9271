//! An image as facts: a name and a text for every path, setting, history entry and layer entry, so that two images are
//! compared by comparing two maps.
//!
//! Read with the `tar` and `flate2` crates, by nothing that the product is made of.

mod explained;
mod facts;
mod layer;
mod layout;
mod reference;

pub use explained::Explained;
pub use facts::{Facts, difference, facts};
pub use layout::Layout;
pub use reference::Reference;
