//! `cargo xtask bench`: the workloads of `bench/` on the reference engine and on ours, in one run.
//!
//! Installs what is missing, builds ours as a user would, and starts the program that measures.

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context, bail};

use crate::command::{cargo, execute, is_root};
use crate::setup;

// The program has the same arguments; a wrong one is to be said before anything is fetched or built.
#[path = "../../bench/src/args.rs"]
#[expect(unreachable_pub, reason = "it is the program's public interface there")]
mod args;

pub(crate) use args::BenchArgs;

const PACKAGE: &str = "buildyard-bench";

/// Sets up, builds, measures.
///
/// # Errors
/// Not root, the set-up or the compiler fails, or nothing can be measured. A goal that is missed is no error.
pub(crate) fn run(root: &Path, args: &BenchArgs) -> anyhow::Result<()> {
    if args.list {
        let list = ["run", "--locked", "--quiet", "--package", PACKAGE, "--"];
        return execute(cargo(root, &list).args(words()));
    }
    if !is_root() {
        bail!("both engines mount and run containers: run `cargo xtask bench` as root");
    }
    setup::run(root)?;
    setup::unpack_roots(root)?;
    if !args.alone {
        setup::unpack_reference(root)?;
    }
    let profile: &[&str] = match args.debug_build {
        true => &[],
        false => &["--release"],
    };
    // Ours alone, so that it is built with the features that users get.
    for package in ["buildyard", PACKAGE] {
        let build = ["build", "--locked", "--package", package];
        execute(cargo(root, &build).args(profile))?;
    }
    let run = ["run", "--locked", "--quiet", "--package", PACKAGE];
    // Files are named as they are seen from here.
    let here = std::env::current_dir().context("the current folder")?;
    let mut bench = cargo(root, &run);
    bench.args(profile).arg("--").args(words());
    execute(bench.current_dir(here))
}

/// The arguments behind `cargo xtask bench`, as they were given.
fn words() -> impl Iterator<Item = OsString> {
    std::env::args_os().skip(2)
}
