//! The program behind `cargo xtask bench`. Started by a person it makes the place to measure in and starts itself there.

use std::process::ExitCode;

use buildyard_bench::args::BenchArgs;
use buildyard_bench::{listing, outside, run, selected};
use clap::Parser;

/// Run the workloads on the reference engine and on ours, alternating, and print the tables.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
struct Cli {
    #[command(flatten)]
    args: BenchArgs,
    /// It is in the name spaces already.
    #[arg(long, hide = true)]
    inside: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    let entries = selected(&cli.args.only)?;
    if cli.args.list {
        print!("{}", listing(&entries));
        return Ok(ExitCode::SUCCESS);
    }
    if cli.inside {
        run::all(&cli.args, &entries)?;
        return Ok(ExitCode::SUCCESS);
    }
    outside::run(&cli.args)
}
