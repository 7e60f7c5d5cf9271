//! How ours changed since an earlier run.

use comfy_table::{CellAlignment, Table, presets};

use super::Report;

/// A table of the rows that both runs have. Where machine, build or scale differ, that is said first.
pub fn changes(now: &Report, before: &Report) -> String {
    let mut text = format!("ours since commit {}\n", before.commit);
    let differences = [
        (
            "machine",
            now.machine.to_string(),
            before.machine.to_string(),
        ),
        ("build", now.build.clone(), before.build.clone()),
        ("scale", now.scale.to_string(), before.scale.to_string()),
    ];
    for (what, now, before) in differences {
        if now != before {
            text += &format!("Not comparable: the {what} was {before}, it is {now}.\n");
        }
    }
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header([
        "row",
        "before",
        "now",
        "change",
        "ratio before",
        "ratio now",
    ]);
    for row in &now.rows {
        let earlier = before.rows.iter().find(|old| old.case.id == row.case.id);
        let Some(earlier) = earlier else { continue };
        let (Some(old), Some(new)) = (earlier.ours.value(), row.ours.value()) else {
            continue;
        };
        let ratio =
            |ratio: Option<f64>| ratio.map_or("–".to_owned(), |ratio| format!("{ratio:.2}"));
        table.add_row([
            row.case.id.clone(),
            row.case.unit.show(old),
            row.case.unit.show(new),
            change(old, new),
            ratio(earlier.ratio()),
            ratio(row.ratio()),
        ]);
    }
    for column in 1..=5 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    format!("{text}\n{table}\n")
}

fn change(old: f64, new: f64) -> String {
    if old <= 0.0 {
        return "–".to_owned();
    }
    format!("{:+.0} %", (new / old - 1.0) * 100.0)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{report, row};
    use super::*;
    use crate::case::{Case, Goal};

    #[test]
    fn rows_of_both_runs_are_compared() {
        let case = |id: &str| Case::seconds(id, "", Goal::None);
        let before = report(vec![
            row(case("W1"), &[1.0], &[0.5]),
            row(case("W2"), &[1.0], &[0.5]),
        ]);
        let mut now = report(vec![
            row(case("W1"), &[0.8], &[0.4]),
            row(case("W3"), &[1.0], &[0.5]),
        ]);
        now.scale = 0.5;
        let expected = "\
ours since commit 0123456
Not comparable: the scale was 1, it is 0.5.

| row | before |  now | change | ratio before | ratio now |
|-----|--------|------|--------|--------------|-----------|
| W1  |   0.50 | 0.40 |  -20 % |         0.50 |      0.50 |
";
        assert_eq!(changes(&now, &before), expected);
    }

    #[test]
    fn a_change_has_a_sign() {
        assert_eq!(change(1.0, 1.5), "+50 %");
        assert_eq!(change(0.0, 1.5), "–");
    }
}
