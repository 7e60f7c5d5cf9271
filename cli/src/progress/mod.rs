//! Showing how a build goes: BuildKit's status messages as text, a terminal view, JSON lines, or nothing.
//!
//! Displays write to standard error; only results go to standard output. Nothing here talks to the network.

mod board;
mod error;
mod format;
mod plain;
mod rawjson;
mod tty;

pub use board::{Board, Line, Step};
pub use error::render_error;
pub(crate) use error::render_warnings;
pub use plain::Plain;
pub use rawjson::{RawJson, status_json};
pub use tty::Tty;

use std::io::IsTerminal;

use bollard_buildkit_proto::moby::buildkit::v1::StatusResponse;

use crate::args::ProgressMode;
use crate::buildkit::Observer;

/// A way of showing progress.
pub trait Display: Observer {
    /// Everything has come: write what is still held back, and leave the terminal clean.
    fn finish(&mut self);
    /// What is known about the steps, if the display keeps it.
    fn board(&self) -> Option<&Board>;
}

/// The display for a mode; `auto` looks whether standard error is a terminal.
pub fn display(mode: ProgressMode, quiet: bool) -> Box<dyn Display> {
    let terminal = std::io::stderr().is_terminal();
    match mode {
        _ if quiet => Box::new(Silent),
        ProgressMode::Quiet | ProgressMode::None => Box::new(Silent),
        ProgressMode::Rawjson => Box::new(RawJson::new(std::io::stderr())),
        ProgressMode::Tty => Box::new(Tty::new()),
        ProgressMode::Auto if terminal => Box::new(Tty::new()),
        ProgressMode::Auto | ProgressMode::Plain => Box::new(Plain::new(std::io::stderr())),
    }
}

/// Shows nothing.
#[derive(Debug)]
pub struct Silent;

impl Observer for Silent {
    fn status(&mut self, _: &StatusResponse) {}
    fn tick(&mut self) {}
}

impl Display for Silent {
    fn finish(&mut self) {}

    fn board(&self) -> Option<&Board> {
        None
    }
}
