//! The order in which everything is measured.

use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::{anyhow, bail};

use crate::args::BenchArgs;
use crate::catalogue::Entry;
use crate::engine::{Engine, Side};
use crate::machine::{Machine, commit};
use crate::outside::furnish;
use crate::report::{Column, Report, Row, changes, tables};
use crate::site::Site;
use crate::workloads::Workload;

/// Measures the entries one after the other, and prints the tables.
///
/// # Errors
/// The registry or an engine does not start, or a file cannot be read or written. A workload that fails is a row that says
/// so.
pub fn all(args: &BenchArgs, entries: &[Entry]) -> anyhow::Result<()> {
    let before = args.compare.as_deref().map(Report::read).transpose()?;
    furnish()?;
    let site = guarded(|| Ok(Site::start(args)))?;
    let mut report = Report {
        commit: commit(),
        machine: Machine::this(),
        build: if args.debug_build { "debug" } else { "release" }.to_owned(),
        scale: args.scale,
        repeat: args.repeat,
        rows: Vec::new(),
    };
    for entry in entries {
        report.rows.extend(measure(&site, entry, args.repeat));
        // After each, so that little is lost if the run is ended.
        if let Some(file) = &args.json {
            report.write(file)?;
        }
    }
    print!("{}", tables(&report));
    if let Some(before) = &before {
        print!("\n{}", changes(&report, before));
    }
    Ok(())
}

/// The rows of one workload.
fn measure(site: &Site, entry: &Entry, repeat: u32) -> Vec<Row> {
    let mut rows: Vec<Row> = (entry.rows)(site.scale)
        .into_iter()
        .map(|case| Row {
            case,
            growth: entry.growth,
            reference: Column::default(),
            ours: Column::default(),
        })
        .collect();
    eprintln!("{}: preparing", entry.name);
    let mut workload = match guarded(|| (entry.make)(site)) {
        Ok(workload) => workload,
        Err(error) => {
            for engine in &site.engines {
                fail(&mut rows, engine.side(), &error);
            }
            return rows;
        }
    };
    let mut engines: Vec<&Engine> = Vec::new();
    for engine in &site.engines {
        match guarded(|| warm(site, entry, &mut *workload, engine)) {
            Ok(()) => engines.push(engine),
            Err(error) => fail(&mut rows, engine.side(), &error),
        }
    }
    for round in 1..=repeat.min(entry.rounds) {
        if let Err(error) = guarded(|| workload.vary(round)) {
            for engine in std::mem::take(&mut engines) {
                fail(&mut rows, engine.side(), &error);
            }
        }
        // Each is the first in every other round.
        engines.reverse();
        engines.retain(|engine| {
            // What was written before must not be written back while this is measured.
            rustix::fs::sync();
            let measured = guarded(|| workload.measure(site, engine, round));
            match &measured {
                Ok(figures) => enter(&mut rows, engine.side(), round, figures),
                Err(error) => fail(&mut rows, engine.side(), error),
            }
            measured.is_ok()
        });
    }
    rows
}

fn warm(
    site: &Site,
    entry: &Entry,
    workload: &mut dyn Workload,
    engine: &Engine,
) -> anyhow::Result<()> {
    if entry.emulated
        && engine.side() == Side::Reference
        && let Some(reason) = &site.no_emulator
    {
        bail!("the emulator could not be registered: {reason}");
    }
    workload.warm(site, engine)
}

fn column(row: &mut Row, side: Side) -> &mut Column {
    match side {
        Side::Reference => &mut row.reference,
        Side::Ours => &mut row.ours,
    }
}

fn enter(rows: &mut [Row], side: Side, round: u32, figures: &[(usize, f64)]) {
    for (number, figure) in figures {
        let row = &mut rows[*number];
        let shown = row.case.unit.show(*figure);
        eprintln!("{} run {round} {}: {shown}", row.case.id, side.name());
        column(row, side).samples.push(*figure);
    }
}

fn fail(rows: &mut [Row], side: Side, error: &anyhow::Error) {
    for row in rows {
        eprintln!("{} {}: {error:#}", row.case.id, side.name());
        column(row, side).error = Some(format!("{error:#}"));
    }
}

/// The parts shared with the tests panic where something is wrong; here that is one row's failure.
fn guarded<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied());
        Err(anyhow!("{}", text.unwrap_or("a part panicked")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_failure_with_its_words() {
        let error = guarded::<()>(|| panic!("no {}", "registry")).expect_err("it panicked");
        assert_eq!(error.to_string(), "no registry");
        assert_eq!(guarded(|| Ok(1)).expect("it did not"), 1);
    }
}
