//! `cargo xtask test`: everything that the tests need, then all tests.
//!
//! nextest runs them where it is installed (groups and time limits are in `.config/nextest.toml`), `cargo test` otherwise.

use std::path::Path;

use anyhow::bail;
use clap::Args;

use crate::command::{cargo, execute, find, is_root, say};
use crate::setup;

/// `cargo xtask test`.
#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// Passed on to the test runner, e.g. `-- -p buildyard-tests`; without it: the whole workspace
    #[arg(last = true)]
    runner: Vec<String>,
}

/// Sets up and tests.
///
/// # Errors
/// Not root, the set-up fails, or a test does.
pub(crate) fn run(root: &Path, args: &TestArgs) -> anyhow::Result<()> {
    if !is_root() {
        bail!(
            "the tests mount, make name spaces and run containers: run `cargo xtask test` as root"
        );
    }
    setup::run(root)?;
    let nextest = find("cargo-nextest").is_some();
    if !nextest {
        say("cargo-nextest is not installed: running `cargo test`, which has no time limits");
    }
    let runner: &[&str] = if nextest {
        &["nextest", "run"]
    } else {
        &["test"]
    };
    let mut command = cargo(root, runner);
    command.arg("--locked");
    if args.runner.is_empty() {
        command.args(["--workspace", "--no-fail-fast"]);
    }
    command
        .args(&args.runner)
        .env("PATH", path_with_peers(root)?);
    execute(&mut command)
}

/// The search path with the programs that were unpacked, not installed.
fn path_with_peers(root: &Path) -> anyhow::Result<std::ffi::OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain([setup::peers(root).join("usr/bin")]);
    Ok(std::env::join_paths(dirs)?)
}
