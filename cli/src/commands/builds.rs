//! `buildyard builds`, `builds show`, `builds logs`.

use buildyard_model::api::{BuildDetail, BuildSummary};
use jiff::Timestamp;

use super::workers::print_json;
use crate::args::{BuildsArgs, BuildsCommand, Format};
use crate::connect::Farm;
use crate::exit::Failure;
use crate::farm::{build_table, builds_table, get_json, get_text, steps_table};

/// Runs the command.
pub(super) async fn run(args: BuildsArgs) -> Result<(), Failure> {
    match args.command {
        None => list(&Farm::new(&args.farm)?, args.limit, args.format).await,
        Some(BuildsCommand::Show { id, farm, format }) => {
            show(&Farm::new(&farm)?, checked(&id)?, format).await
        }
        Some(BuildsCommand::Logs { id, step, farm }) => {
            logs(&Farm::new(&farm)?, checked(&id)?, step).await
        }
    }
}

/// Ids are put into paths, so only what clients choose for them is let through.
fn checked(id: &str) -> Result<&str, Failure> {
    let well_formed = !id.is_empty()
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    if well_formed {
        Ok(id)
    } else {
        Err(Failure::usage(format!("{id:?} is not the id of a build")))
    }
}

async fn list(farm: &Farm, limit: u32, format: Format) -> Result<(), Failure> {
    let path = format!("/api/v1/builds?limit={limit}");
    let builds: Vec<BuildSummary> = get_json(farm, &path, "the list of builds").await?;
    match format {
        Format::Json => return print_json(&builds),
        Format::Table if builds.is_empty() => {
            eprintln!("The farm at {} has seen no build yet.", farm.target())
        }
        Format::Table => print!("{}", builds_table(&builds, Timestamp::now())),
    }
    Ok(())
}

async fn show(farm: &Farm, id: &str, format: Format) -> Result<(), Failure> {
    let build: BuildDetail = get_json(
        farm,
        &format!("/api/v1/builds/{id}"),
        &format!("the build {id}"),
    )
    .await?;
    match format {
        Format::Json => print_json(&build),
        Format::Table => {
            print!("{}\n{}", build_table(&build), steps_table(&build.steps));
            Ok(())
        }
    }
}

async fn logs(farm: &Farm, id: &str, step: Option<u32>) -> Result<(), Failure> {
    let query = step.map(|step| format!("?step={step}")).unwrap_or_default();
    let what = match step {
        Some(step) => format!("step {step} of the build {id}"),
        None => format!("the build {id}"),
    };
    print!(
        "{}",
        get_text(farm, &format!("/api/v1/builds/{id}/logs{query}"), &what).await?
    );
    Ok(())
}
