//! The figures of a run: rows with both engines' measurements, what they say about the goals, kept as JSON.

mod change;
mod table;

use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

pub use change::changes;
pub use table::tables;

use crate::case::{Case, Goal};
use crate::machine::Machine;
use crate::stats::median;

/// Everything that a run has found out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The commit of the source, `-dirty` behind it if something was changed.
    pub commit: String,
    /// Where it ran.
    pub machine: Machine,
    /// The build of ours: `release` or `debug`.
    pub build: String,
    /// What sizes and counts were multiplied with.
    pub scale: f64,
    /// How often each workload was asked to run.
    pub repeat: u32,
    /// The rows, in their order.
    pub rows: Vec<Row>,
}

/// One row with its figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What it is.
    #[serde(flatten)]
    pub case: Case,
    /// It belongs into the second table, which shows how the cost grows.
    pub growth: bool,
    /// The reference engine's figures.
    pub reference: Column,
    /// Ours.
    pub ours: Column,
}

/// One engine's figures of a row.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// In the order of the runs.
    pub samples: Vec<f64>,
    /// Why there are no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Column {
    /// The median; none where nothing was measured or something failed.
    pub fn value(&self) -> Option<f64> {
        match self.error {
            Some(_) => None,
            None => median(&self.samples),
        }
    }
}

impl Row {
    /// Ours by the reference's.
    pub fn ratio(&self) -> Option<f64> {
        let (ours, reference) = (self.ours.value()?, self.reference.value()?);
        (reference > 0.0).then_some(ours / reference)
    }
}

impl Report {
    /// Whether a row's goal is met, and by which factor ours is off it (above 1: it is missed); none where it cannot be
    /// said.
    pub fn off(&self, row: &Row) -> Option<f64> {
        let ours = row.ours.value()?;
        match &row.case.goal {
            Goal::Ratio(most) => Some(row.ratio()? / most),
            Goal::Most(most) => Some(ours / most),
            Goal::Of { row: id, factor } => {
                let other = self.rows.iter().find(|other| other.case.id == *id)?;
                Some(ours / (other.ours.value()? * factor))
            }
            Goal::None => None,
        }
    }

    /// Reads what [`Self::write`] wrote.
    ///
    /// # Errors
    /// The file is not there or is something else.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| {
            format!(
                "{} was not written by --json of this version",
                path.display()
            )
        })
    }

    /// Writes it as JSON.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let mut text = serde_json::to_string_pretty(self).context("figures as JSON")?;
        text.push('\n');
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    pub(crate) fn row(case: Case, reference: &[f64], ours: &[f64]) -> Row {
        let column = |samples: &[f64]| Column {
            samples: samples.to_vec(),
            error: None,
        };
        Row {
            growth: case.id.contains('/'),
            case,
            reference: column(reference),
            ours: column(ours),
        }
    }

    pub(crate) fn report(rows: Vec<Row>) -> Report {
        Report {
            commit: "0123456".into(),
            machine: Machine {
                processor: "a processor".into(),
                cores: 2,
                memory_mb: 24_000,
                kernel: "6.18.0".into(),
            },
            build: "release".into(),
            scale: 1.0,
            repeat: 3,
            rows,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{report, row};
    use super::*;

    #[test]
    fn goals_are_judged_by_medians() {
        let rows = vec![
            row(
                Case::seconds("W1", "", Goal::Ratio(0.5)),
                &[2.0, 9.0, 1.0],
                &[0.5],
            ),
            row(Case::megabytes("idle", "", Goal::Most(30.0)), &[], &[45.0]),
            row(
                Case::seconds("index/6", "", Goal::of("W1", 2.0)),
                &[],
                &[1.5],
            ),
            row(
                Case::seconds("index/7", "", Goal::of("gone", 2.0)),
                &[],
                &[1.5],
            ),
            row(Case::seconds("W2", "", Goal::Ratio(0.5)), &[], &[1.0]),
            row(Case::seconds("W3", "", Goal::None), &[1.0], &[1.0]),
        ];
        let report = report(rows);
        let off: Vec<_> = report.rows.iter().map(|row| report.off(row)).collect();
        assert_eq!(off, [Some(0.5), Some(1.5), Some(1.5), None, None, None]);
    }

    #[test]
    fn a_failed_column_has_no_value() {
        let mut row = row(Case::seconds("W1", "", Goal::Ratio(0.5)), &[1.0], &[1.0]);
        row.ours.error = Some("the build failed".into());
        assert_eq!((row.ours.value(), row.ratio()), (None, None));
    }

    #[test]
    fn json_is_read_back() {
        let mut failed = row(Case::times("disk", "stored", Goal::Most(1.1)), &[1.25], &[]);
        failed.ours.error = Some("no room".into());
        let written = report(vec![
            row(
                Case::seconds("index/6", "a", Goal::of("W1", 1.2)),
                &[],
                &[0.5],
            ),
            failed,
        ]);
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("figures.json");
        written.write(&path).expect("written");
        assert_eq!(Report::read(&path).expect("read"), written);

        std::fs::write(&path, "{}").expect("written");
        let error = Report::read(&path).expect_err("not a report");
        assert!(error.to_string().contains("--json"), "{error}");
    }
}
