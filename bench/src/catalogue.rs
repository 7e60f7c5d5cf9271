//! All workloads by name.

use anyhow::bail;

use crate::case::Case;
use crate::site::{Scale, Site};
use crate::workloads::{self, Workload};

/// One workload: its name, its rows, and how it is made.
pub struct Entry {
    pub(crate) name: &'static str,
    /// It belongs into the table of what grows.
    pub(crate) growth: bool,
    /// Its rounds at most: for those that take minutes.
    pub(crate) rounds: u32,
    /// It runs steps of the other platform.
    pub(crate) emulated: bool,
    pub(crate) rows: fn(Scale) -> Vec<Case>,
    pub(crate) make: fn(&Site) -> anyhow::Result<Box<dyn Workload>>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(self.name)
    }
}

/// The entries with these names, in the tables' order; all for no names.
///
/// # Errors
/// There is no workload of a name.
pub fn selected(names: &[String]) -> anyhow::Result<Vec<Entry>> {
    let all = workloads::all();
    let is = |entry: &Entry, name: &str| entry.name.eq_ignore_ascii_case(name);
    if let Some(unknown) = names
        .iter()
        .find(|name| !all.iter().any(|entry| is(entry, name)))
    {
        let known: Vec<&str> = all.iter().map(|entry| entry.name).collect();
        bail!(
            "--only {unknown}: there is no such workload; there are {}",
            known.join(", ")
        );
    }
    let wanted = |entry: &Entry| names.is_empty() || names.iter().any(|name| is(entry, name));
    Ok(all.into_iter().filter(wanted).collect())
}

/// The entries in words.
pub fn listing(entries: &[Entry]) -> String {
    let mut text = String::new();
    for entry in entries {
        let limit = match entry.rounds {
            u32::MAX => String::new(),
            most => format!(" (at most {most} runs)"),
        };
        text += &format!("{}{limit}\n", entry.name);
        for case in (entry.rows)(Scale(1.0)) {
            text += &format!(
                "    {} {}: {}\n",
                case.id,
                case.about,
                case.goal.show(case.unit)
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::case::Goal;

    #[test]
    fn rows_have_ids_of_their_own_and_goals_name_rows() {
        for scale in [1.0, 0.01] {
            let entries = selected(&[]).expect("all");
            let rows: Vec<Case> = entries
                .iter()
                .flat_map(|entry| (entry.rows)(Scale(scale)))
                .collect();
            let ids: BTreeSet<&str> = rows.iter().map(|row| row.id.as_str()).collect();
            assert_eq!(ids.len(), rows.len());
            for row in &rows {
                if let Goal::Of { row: other, .. } = &row.goal {
                    assert!(ids.contains(other.as_str()), "{} refers to {other}", row.id);
                }
            }
        }
    }

    #[test]
    fn workloads_are_chosen_by_name() {
        let chosen = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            selected(&names)
                .map(|entries| entries.iter().map(|entry| entry.name).collect::<Vec<_>>())
        };
        assert_eq!(
            chosen(&["chain", "w2B", "W1"]).expect("known"),
            ["W1", "W2b", "chain"]
        );
        let error = chosen(&["W1", "W99"]).expect_err("unknown");
        assert!(error.to_string().contains("W99"), "{error}");
    }

    #[test]
    fn the_issues_workloads_are_all_there() {
        let text = listing(&selected(&[]).expect("all"));
        for name in [
            "W1", "W2", "W2b", "W3", "W4", "W5", "W6", "W7", "W8", "W9", "W10", "W11", "W12",
        ] {
            assert!(
                text.lines()
                    .any(|line| line == name || line.starts_with(&format!("{name} ("))),
                "{name} in {text}"
            );
        }
    }
}
