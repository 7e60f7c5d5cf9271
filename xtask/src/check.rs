//! `cargo xtask check`: what is looked at before the tests run. Reads only, apart from what cargo compiles.

use std::path::Path;

use crate::command::{cargo, execute, find, say};
use crate::proto;

/// Runs all checks, the cheap ones first.
///
/// # Errors
/// The first check that fails.
pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    execute(&mut cargo(root, &["fmt", "--all", "--check"]))?;
    if proto::has_protoc() {
        say("comparing the generated code with proto/");
        proto::check(root)?;
    } else {
        say("protoc is not installed: the generated code is not compared with proto/");
    }
    if find("cargo-deny").is_some() {
        execute(&mut cargo(root, &["deny", "--workspace", "check"]))?;
    } else {
        say(
            "cargo-deny is not installed: licences and bans are left to the test `dependencies` of xtask",
        );
    }
    let clippy = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "-D",
        "warnings",
    ];
    execute(&mut cargo(root, &clippy))
}
