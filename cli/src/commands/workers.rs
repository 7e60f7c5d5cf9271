//! `buildyard workers`.

use buildyard_model::api::WorkerInfo;
use jiff::Timestamp;

use crate::args::{Format, WorkersArgs};
use crate::connect::Farm;
use crate::exit::Failure;
use crate::farm::{get_json, workers_table};

/// Runs the command.
pub(super) async fn run(args: WorkersArgs) -> Result<(), Failure> {
    let farm = Farm::new(&args.farm)?;
    let workers: Vec<WorkerInfo> =
        get_json(&farm, "/api/v1/workers", "the list of workers").await?;
    match args.format {
        Format::Json => print_json(&workers),
        Format::Table if workers.is_empty() => {
            eprintln!("No worker has joined the farm at {} yet.", farm.target());
            Ok(())
        }
        Format::Table => {
            print!("{}", workers_table(&workers, Timestamp::now()));
            Ok(())
        }
    }
}

/// Prints a value as JSON.
pub(super) fn print_json<T: serde::Serialize>(value: &T) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::Asked(error.into()))?;
    println!("{text}");
    Ok(())
}
