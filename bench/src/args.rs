//! The arguments of `cargo xtask bench`.
//!
//! xtask compiles this file too, so that a wrong flag is said before anything is fetched or built. It uses nothing but clap.

use std::path::PathBuf;

use clap::Args;

/// What is to be measured, and how.
#[derive(Debug, Clone, Args)]
pub struct BenchArgs {
    /// Only these workloads, by their names in --list, e.g. W1,W2b,chain
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub only: Vec<String>,
    /// How often each workload runs on each engine; the costly ones run at most as often as --list says
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub repeat: u32,
    /// Write all figures to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Show how ours changed since the run that wrote this file with --json
    #[arg(long, value_name = "FILE")]
    pub compare: Option<PathBuf>,
    /// List the workloads and run none
    #[arg(long)]
    pub list: bool,
    /// How long one build may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 900, value_parser = clap::value_parser!(u64).range(1..))]
    pub timeout: u64,
    /// Measure ours alone, without the reference engine
    #[arg(long)]
    pub alone: bool,
    /// Measure the debug build of ours: for trying the bench, its figures mean nothing
    #[arg(long)]
    pub debug_build: bool,
    /// Sizes and counts times this, e.g. 0.01: for trying the bench, its figures mean little
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = factor)]
    pub scale: f64,
}

fn factor(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(factor) if factor > 0.0 && factor <= 1.0 => Ok(factor),
        _ => Err("a number above 0 and up to 1".to_owned()),
    }
}
