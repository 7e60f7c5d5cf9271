//! A row of the tables before it has figures: what is measured, in which unit, and what it should be.

use serde::{Deserialize, Serialize};

/// What a figure counts. Less is better for all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Wall time.
    Seconds,
    /// Millions of bytes.
    Megabytes,
    /// One size by another.
    Times,
}

impl Unit {
    /// A figure as it stands in a table; seconds are what most are, so only the others name their unit.
    pub fn show(self, value: f64) -> String {
        match self {
            Self::Seconds => number(value),
            Self::Megabytes => format!("{} MB", number(value)),
            Self::Times => format!("{} ×", number(value)),
        }
    }
}

/// Three digits that matter, none of them after the point of a large number.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// What ours should be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Goal {
    /// Ours is at most this times the reference's.
    Ratio(f64),
    /// Ours is at most this, in the row's unit.
    Most(f64),
    /// Ours is at most `factor` times ours of another row.
    Of {
        /// The other row's id.
        row: String,
        /// How many times.
        factor: f64,
    },
    /// The figure is for information.
    None,
}

impl Goal {
    /// Ours is at most `factor` times ours of the row `row`.
    pub fn of(row: &str, factor: f64) -> Self {
        Self::Of {
            row: row.to_owned(),
            factor,
        }
    }

    /// As it stands in a table.
    pub fn show(&self, unit: Unit) -> String {
        match self {
            Self::Ratio(most) => format!("≤ {most}"),
            Self::Most(most) => match unit {
                Unit::Seconds => format!("≤ {most} s"),
                Unit::Megabytes => format!("≤ {most} MB"),
                Unit::Times => format!("≤ {most} ×"),
            },
            Self::Of { row, factor } => format!("≤ {factor} of {row}"),
            Self::None => "–".to_owned(),
        }
    }
}

/// One row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// What finds the row again in another run, e.g. `W1` or `chain/400`. Never depends on the scale.
    pub id: String,
    /// What is measured, with the sizes of this run.
    pub about: String,
    /// The unit of its figures.
    pub unit: Unit,
    /// What ours should be.
    pub goal: Goal,
}

impl Case {
    /// A wall time.
    pub fn seconds(id: impl Into<String>, about: impl Into<String>, goal: Goal) -> Self {
        Self::new(id, about, Unit::Seconds, goal)
    }

    /// A size.
    pub fn megabytes(id: impl Into<String>, about: impl Into<String>, goal: Goal) -> Self {
        Self::new(id, about, Unit::Megabytes, goal)
    }

    /// A share.
    pub fn times(id: impl Into<String>, about: impl Into<String>, goal: Goal) -> Self {
        Self::new(id, about, Unit::Times, goal)
    }

    fn new(id: impl Into<String>, about: impl Into<String>, unit: Unit, goal: Goal) -> Self {
        Self {
            id: id.into(),
            about: about.into(),
            unit,
            goal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits() {
        let check = |unit: Unit, value, expected| assert_eq!(unit.show(value), expected);
        check(Unit::Seconds, 0.0123, "0.012");
        check(Unit::Seconds, 0.123, "0.12");
        check(Unit::Seconds, 12.34, "12.3");
        check(Unit::Megabytes, 307.4, "307 MB");
        check(Unit::Times, 1.05, "1.05 ×");
    }

    #[test]
    fn goals_name_what_they_are_measured_by() {
        let check = |goal: Goal, unit, expected| assert_eq!(goal.show(unit), expected);
        check(Goal::Ratio(0.25), Unit::Seconds, "≤ 0.25");
        check(Goal::Most(30.0), Unit::Megabytes, "≤ 30 MB");
        check(Goal::Most(0.15), Unit::Seconds, "≤ 0.15 s");
        check(Goal::of("index/3", 1.2), Unit::Seconds, "≤ 1.2 of index/3");
        check(Goal::None, Unit::Seconds, "–");
    }
}
