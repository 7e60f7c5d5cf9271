//! The binary `buildyard`: reads the arguments, runs one command, turns its outcome into an exit code.

use std::process::ExitCode;

use buildyard_cli::args::Cli;
use buildyard_cli::{commands, heap};
use buildyard_worker::runner::{STEP_HELPER, step_helper};
use clap::Parser;

fn main() -> ExitCode {
    // Started by a worker: it must stay small and have one thread.
    let mut arguments = std::env::args_os().skip(1);
    if arguments
        .next()
        .is_some_and(|command| command == STEP_HELPER)
    {
        return step_helper(arguments);
    }
    let cli = Cli::parse();
    // A second installation would be refused, but nothing has run before this line.
    let _ = rustls::crypto::ring::default_provider().install_default();
    heap::few_arenas();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("ERROR: cannot start the runtime: {error}");
            return ExitCode::from(3);
        }
    };
    let outcome = runtime.block_on(commands::run(cli));
    // A blocked read of standard input must not keep the process alive.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report();
            failure.code()
        }
    }
}
