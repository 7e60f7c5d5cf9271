//! The two tables, in Markdown, so that they can be pasted.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, Table, presets};

use super::{Column, Report, Row};
use crate::case::Unit;

/// The run in words, then the table of the workloads, then that of what grows, then why rows failed.
pub fn tables(report: &Report) -> String {
    let mut text = heading(report);
    for (growth, name) in [(false, "workload"), (true, "what grows")] {
        let rows: Vec<&Row> = report
            .rows
            .iter()
            .filter(|row| row.growth == growth)
            .collect();
        if !rows.is_empty() {
            text += &format!("\n{}\n", table(report, name, &rows));
        }
    }
    for ((engine, error), ids) in failures(report) {
        text += &format!("\n{} failed on {engine}: {error}\n", ids.join(", "));
    }
    text
}

/// Rows by the engine that they failed on and the reason: those of one workload have the same.
fn failures(report: &Report) -> BTreeMap<(&str, &str), Vec<&str>> {
    let mut failures: BTreeMap<_, Vec<&str>> = BTreeMap::new();
    for row in &report.rows {
        for (engine, column) in [("reference", &row.reference), ("ours", &row.ours)] {
            if let Some(error) = &column.error {
                let ids = failures.entry((engine, error.as_str())).or_default();
                ids.push(&row.case.id);
            }
        }
    }
    failures
}

fn heading(report: &Report) -> String {
    let mut text = format!(
        "commit {}, {} build; {}; medians of up to {} alternating runs\n",
        report.commit, report.build, report.machine, report.repeat
    );
    if report.build == "debug" {
        text += "A debug build of ours: these figures say nothing about its speed.\n";
    }
    if report.scale < 1.0 {
        text += &format!(
            "Sizes and counts times {}: the goals are meant for 1.\n",
            report.scale
        );
    }
    text
}

fn table(report: &Report, first: &str, rows: &[&Row]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header([first, "reference s", "ours s", "ratio", "goal", "met"]);
    for row in rows {
        table.add_row([
            format!("{} {}", row.case.id, row.case.about),
            cell(&row.reference, row.case.unit),
            cell(&row.ours, row.case.unit),
            row.ratio()
                .map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}")),
            row.case.goal.show(row.case.unit),
            met(report.off(row)),
        ]);
    }
    for column in [1, 2, 3] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn cell(column: &Column, unit: Unit) -> String {
    match (&column.error, column.value()) {
        (Some(_), _) => "failed".to_owned(),
        (None, Some(value)) => unit.show(value),
        (None, None) => "–".to_owned(),
    }
}

/// `no` comes with how far ours is off.
fn met(off: Option<f64>) -> String {
    match off {
        None => "–".to_owned(),
        Some(off) if off <= 1.0 => "yes".to_owned(),
        Some(off) => format!("no: {off:.1} × the goal"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{report, row};
    use super::*;
    use crate::case::{Case, Goal};

    #[test]
    fn both_tables_are_markdown() {
        let mut failed = row(
            Case::seconds("W6", "emulated", Goal::Ratio(0.8)),
            &[],
            &[0.5],
        );
        failed.reference.error = Some("no emulator".into());
        let mut report = report(vec![
            row(
                Case::seconds("W1", "push", Goal::Ratio(0.5)),
                &[0.2],
                &[0.05],
            ),
            failed,
            row(
                Case::megabytes("memory/idle", "idle", Goal::Most(30.0)),
                &[93.2],
                &[45.0],
            ),
        ]);
        report.scale = 0.1;
        let expected = "\
commit 0123456, release build; 2 cores (a processor), 24.0 GB, kernel 6.18.0; medians of up to 3 alternating runs
Sizes and counts times 0.1: the goals are meant for 1.

| workload    | reference s | ours s | ratio | goal  | met |
|-------------|-------------|--------|-------|-------|-----|
| W1 push     |        0.20 |  0.050 |  0.25 | ≤ 0.5 | yes |
| W6 emulated |      failed |   0.50 |     – | ≤ 0.8 | –   |

| what grows       | reference s |  ours s | ratio | goal    | met                |
|------------------|-------------|---------|-------|---------|--------------------|
| memory/idle idle |     93.2 MB | 45.0 MB |  0.48 | ≤ 30 MB | no: 1.5 × the goal |

W6 failed on reference: no emulator
";
        assert_eq!(tables(&report), expected);
    }

    #[test]
    fn a_debug_build_is_said() {
        let mut report = report(Vec::new());
        report.build = "debug".into();
        assert!(tables(&report).contains("say nothing about its speed"));
    }
}
