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
#[command(after_help = "Example:\n  buildyard builder setup --create --use")]
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// The commands that are run as they are, with the words that lead there.
    fn leaves(command: &clap::Command, path: &str, found: &mut Vec<(String, clap::Command)>) {
        let path = format!("{path} {}", command.get_name());
        let own = command.get_subcommands();
        let own: Vec<_> = own.filter(|sub| sub.get_name() != "help").collect();
        own.iter().for_each(|sub| leaves(sub, &path, found));
        if own.is_empty() || command.get_name() == "builds" {
            found.push((path.trim_start().to_owned(), command.clone()));
        }
    }

    #[test]
    fn every_command_has_examples_that_parse() {
        let mut found = Vec::new();
        leaves(&Cli::command(), "", &mut found);
        assert!(found.len() >= 9, "{found:?}");
        for (path, command) in found {
            let help = command.get_after_help().map(ToString::to_string);
            let help = help.unwrap_or_default();
            let examples: Vec<_> = help.lines().filter(|line| line.contains(&path)).collect();
            assert!(!examples.is_empty(), "{path} has no example: {help}");
            for line in examples {
                let words = line.split(['>', '|']).next().unwrap_or_default();
                let parsed = Cli::try_parse_from(words.split_whitespace());
                assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
            }
        }
    }
}
