//! The commands: each takes its parsed flags and does what they say.

mod build;
mod builds;
mod workers;

use clap::CommandFactory;

use crate::args::{BuilderCommand, Cli, Command};
use crate::builder_setup;
use crate::exit::Failure;

/// Runs one command.
///
/// # Errors
/// Why it did not succeed, with its exit code.
pub async fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Serve(command) => crate::serve::run(command).await,
        Command::Build(args) => build::run(*args).await,
        Command::Builds(args) => builds::run(args).await,
        Command::Workers(args) => workers::run(args).await,
        Command::Builder(args) => match args.command {
            BuilderCommand::Setup(args) => builder_setup::run(&args).await,
        },
        Command::Completions(args) => {
            clap_complete::generate(
                args.shell,
                &mut Cli::command(),
                "buildyard",
                &mut std::io::stdout(),
            );
            Ok(())
        }
    }
}
