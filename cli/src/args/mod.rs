//! The command line as types. Parsing only: what a value means is decided in [`crate::request`] and [`crate::serve`].

mod build;
mod farm;
mod fields;
mod queries;
pub mod serve;

pub use build::{BuildArgs, ProgressMode};
pub use farm::FarmArgs;
pub use fields::{FieldsError, fields, key_values};
pub use queries::{BuildsArgs, BuildsCommand, Format, SetupArgs, WorkersArgs};

use clap::{Args, Parser, Subcommand};

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "buildyard",
    version,
    about = "A multi-architecture image build farm that any BuildKit client can use",
    after_help = "Exit codes: 0 done; 1 the build failed because of what was asked; 2 wrong usage; \
                  3 the farm could not do it; 130 interrupted."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a server of the farm
    #[command(flatten)]
    Serve(serve::ServeCommand),
    /// Build an image on the farm
    Build(Box<BuildArgs>),
    /// Show the builds that the farm knows, one build's steps, or its logs
    Builds(BuildsArgs),
    /// Show the farm's workers and the platforms they offer
    Workers(WorkersArgs),
    /// Let docker buildx use the farm
    Builder(BuilderArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
}

/// `buildyard builder …`.
#[derive(Debug, Args)]
pub struct BuilderArgs {
    /// What to do with the builder.
    #[command(subcommand)]
    pub command: BuilderCommand,
}

/// The commands under `builder`.
#[derive(Debug, Subcommand)]
pub enum BuilderCommand {
    /// Print the command that makes a buildx builder of this farm, or run it
    Setup(SetupArgs),
}

/// `buildyard completions …`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  buildyard completions bash > /etc/bash_completion.d/buildyard")]
pub struct CompletionsArgs {
    /// The shell
    pub shell: clap_complete::Shell,
}
