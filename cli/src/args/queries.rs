//! Flags of the commands that look at the farm, and of `builder setup`.

use clap::{Args, Subcommand, ValueEnum};

use super::FarmArgs;

/// How a table is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// Columns for people
    #[default]
    Table,
    /// The farm's answer, for programs
    Json,
}

/// `buildyard workers`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  buildyard workers --builder https://farm.example:8372 --format json"
)]
pub struct WorkersArgs {
    /// The farm.
    #[command(flatten)]
    pub farm: FarmArgs,
    /// How to write the answer
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// `buildyard builds`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  buildyard builds\n  buildyard builds show ID\n  buildyard builds logs ID"
)]
pub struct BuildsArgs {
    /// One build instead of the list.
    #[command(subcommand)]
    pub command: Option<BuildsCommand>,
    /// The farm.
    #[command(flatten)]
    pub farm: FarmArgs,
    /// How many builds to list, the newest first
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
    /// How to write the answer
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// The commands under `builds`.
#[derive(Debug, Subcommand)]
pub enum BuildsCommand {
    /// Show one build and its steps
    #[command(
        after_help = "Example:\n  buildyard builds show s85ycc3ztgv6y5u80rp9okuld --format json"
    )]
    Show {
        /// The build's id, as the list shows it
        id: String,
        /// The farm.
        #[command(flatten)]
        farm: FarmArgs,
        /// How to write the answer
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Print what a build's steps wrote
    #[command(after_help = "Examples:
  buildyard builds logs s85ycc3ztgv6y5u80rp9okuld
  buildyard builds logs s85ycc3ztgv6y5u80rp9okuld 7")]
    Logs {
        /// The build's id, as the list shows it
        id: String,
        /// Only this step: its number as `builds show` counts
        step: Option<u32>,
        /// The farm.
        #[command(flatten)]
        farm: FarmArgs,
    },
}

/// `buildyard builder setup`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  buildyard builder setup
  buildyard builder setup --builder https://farm.example:8372 --ca ca.pem --cert me.pem --key me.key --create --use")]
pub struct SetupArgs {
    /// The farm.
    #[command(flatten)]
    pub farm: FarmArgs,
    /// The builder's name in buildx
    #[arg(long, default_value = "buildyard")]
    pub name: String,
    /// Run the command instead of printing it
    #[arg(long)]
    pub create: bool,
    /// Make it the builder that buildx uses when none is named
    #[arg(long = "use")]
    pub make_default: bool,
}
