//! Small real systems for the tests of whole farms: the built binary, the real client, a real registry, images made of
//! Debian's busybox, independent readers.
//!
//! Everything listens on loopback, at a free port, keeps its files in a temporary folder, and is gone when its value is
//! dropped, also when a test fails or is killed. Nothing here is a fake. A part that cannot be started panics and shows
//! what it wrote: a test without its parts fails, it is never skipped. What the tests promise is in `tests/`.

#![allow(clippy::expect_used, reason = "the whole crate is test code")]

mod blobs;
mod buildx;
mod certificates;
pub mod compare;
mod context;
mod farm;
mod image;
mod mark;
mod netns;
mod port;
mod process;
mod programs;
mod projects;
mod read;
mod registry;
mod running;
mod scratch;
mod server;
mod tokens;
mod wait;

pub use blobs::is_gzip;
pub use buildx::{Buildx, Outcome};
pub use certificates::Certificates;
pub use context::Context;
pub use farm::Farm;
pub use image::{push_archives, push_base_image, push_lying_image, push_repacked_image};
pub use mark::Mark;
pub use netns::OtherNetwork;
pub use port::free_port;
pub use process::Process;
pub use programs::{buildyard, busybox, emulator, native_architecture, peers};
pub use projects::{Checkout, Project, is_recorded, last_words};
pub use read::{Image, inspect_raw};
pub use registry::{Login, Registry};
pub use running::Running;
pub use scratch::{Scratch, containers_of, network_of, unmount_below};
pub use server::{Serve, Server};
pub use tokens::TokenRequest;
pub use wait::wait_for;

/// Both platforms that the farm is asked for in most tests.
pub const PLATFORMS: &str = "linux/amd64,linux/arm64";
