//! `cargo xtask`: what a developer runs. One module per command; this file only parses the command line.
//!
//! Commands install what they need themselves, so that a fresh Debian or Ubuntu machine with Rust is enough.

mod bench;
mod check;
mod command;
mod compare;
mod debian;
mod demo;
mod proto;
mod setup;
mod test;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Everything a developer of Buildyard runs.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install what is missing, then show a build for two platforms, and the same build again
    Demo,
    /// Install the programs that the demo and the tests need
    Setup,
    /// Look at the code: formatting, clippy, generated files, dependencies
    Check,
    /// Install what is missing, then run all tests
    Test(test::TestArgs),
    /// Build every project of tests/dockerfiles with the reference engine and with ours, and compare the images
    Compare(compare::CompareArgs),
    /// Measure the workloads with the reference engine and with ours, and print the tables
    Bench(bench::BenchArgs),
    /// Make the generated code of buildyard.v1 anew (needs protoc)
    Proto(proto::ProtoArgs),
}

fn main() -> anyhow::Result<()> {
    let root = workspace();
    match Cli::parse().task {
        Task::Demo => demo::run(&root),
        Task::Setup => setup::run(&root),
        Task::Check => check::run(&root),
        Task::Test(args) => test::run(&root, &args),
        Task::Compare(args) => compare::run(&root, &args),
        Task::Bench(args) => bench::run(&root, &args),
        Task::Proto(args) => proto::run(&root, &args),
    }
}

/// The folder of the workspace: where this program was built from.
fn workspace() -> PathBuf {
    let xtask = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask
        .parent()
        .expect("xtask lies in the workspace")
        .to_owned()
}
