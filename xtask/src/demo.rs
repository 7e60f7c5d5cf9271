//! `cargo xtask demo`: installs what is missing, builds the farm, and shows a build for two platforms.
//!
//! What is shown is in `tests/examples/demo.rs`, made of the same parts as the farm tests.

use std::path::Path;

use anyhow::bail;

use crate::command::{cargo, execute, is_root};
use crate::setup;

/// Runs it.
///
/// # Errors
/// Not root, the set-up or the compiler fails, or the demo does.
pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    if !is_root() {
        bail!("the demo mounts and runs containers: run `cargo xtask demo` as root");
    }
    setup::run(root)?;
    let build = [
        "build",
        "--locked",
        "--package",
        "buildyard",
        "--bin",
        "buildyard",
    ];
    execute(&mut cargo(root, &build))?;
    let show = [
        "run",
        "--quiet",
        "--locked",
        "--package",
        "buildyard-tests",
        "--example",
        "demo",
    ];
    execute(&mut cargo(root, &show))
}
