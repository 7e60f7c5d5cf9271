//! `cargo xtask compare`: the same projects through the reference engine and through ours, the images compared.
//!
//! The comparing itself is the program `compare` of the tests, which uses their registry, base image and client.

use std::path::Path;

use anyhow::bail;
use clap::Args;

use crate::command::{cargo, execute, is_root};
use crate::setup;

/// `cargo xtask compare`.
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// Write down what the reference made as what the test of the projects expects
    #[arg(long)]
    record: bool,
    /// Only projects whose names contain one of these
    projects: Vec<String>,
}

/// Sets up, builds, compares.
///
/// # Errors
/// Not root, the set-up fails, or images differ without an explanation.
pub(crate) fn run(root: &Path, args: &CompareArgs) -> anyhow::Result<()> {
    if !is_root() {
        bail!("the reference engine mounts and runs containers: run `cargo xtask compare` as root");
    }
    setup::run(root)?;
    setup::unpack_reference(root)?;
    execute(&mut cargo(
        root,
        &["build", "--locked", "--package", "buildyard"],
    ))?;
    let words = [
        "run",
        "--locked",
        "--quiet",
        "--package",
        "buildyard-tests",
        "--bin",
        "compare",
        "--",
    ];
    let mut compare = cargo(root, &words);
    compare.args(&args.projects);
    if args.record {
        compare.env("BUILDYARD_COMPARE_RECORD", "1");
    }
    execute(&mut compare)
}
