//! Differences that are meant: `explained.txt` beside the projects.
//!
//! A paragraph for each: lines `PROJECT: FACT`, in which `*` stands for anything, then the reason, indented.

use std::fs;

use crate::projects::corpus;

/// The list.
#[derive(Debug)]
pub struct Explained {
    entries: Vec<Entry>,
}

#[derive(Debug, Default)]
struct Entry {
    patterns: Vec<String>,
    reason: String,
}

impl Explained {
    /// Reads the list.
    ///
    /// # Panics
    /// It is not there.
    pub fn read() -> Self {
        let text = fs::read_to_string(corpus().join("explained.txt"));
        Self::parse(&text.expect("reading explained.txt"))
    }

    fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let text: String = lines.map(|line| format!("{line}\n")).collect();
        let entries = text.split("\n\n").map(|paragraph| {
            let mut entry = Entry::default();
            for line in paragraph.lines() {
                match line.strip_prefix("    ") {
                    Some(reason) if entry.reason.is_empty() => entry.reason = reason.to_owned(),
                    Some(reason) => entry.reason += &format!(" {reason}"),
                    None if line.is_empty() => {}
                    None => entry.patterns.push(line.to_owned()),
                }
            }
            entry
        });
        Self {
            entries: entries.filter(|entry| !entry.patterns.is_empty()).collect(),
        }
    }

    /// Why the engines differ in a fact of a project; none: it is not explained.
    pub fn reason(&self, project: &str, fact: &str) -> Option<&str> {
        let name = format!("{project}: {fact}");
        let entry = self
            .entries
            .iter()
            .find(|entry| entry.patterns.iter().any(|pattern| matches(pattern, &name)))?;
        Some(&entry.reason)
    }
}

/// Whether `text` fits `pattern`, in which `*` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(text) = text.strip_prefix(first) else {
        return false;
    };
    (0..=text.len())
        .filter(|&at| text.is_char_boundary(at))
        .any(|at| matches(rest, &text[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_explained_by_the_first_pattern_that_fits() {
        let list = Explained::parse(
            "# about\na: file x*z\nb: *\n    Because of\n    this.\n\n*: history 01\n    That.\n",
        );
        let check = |project, fact, reason: Option<&str>| {
            assert_eq!(list.reason(project, fact), reason, "{project}: {fact}")
        };
        check("a", "file xyz", Some("Because of this."));
        check("a", "file xy", None);
        check("b", "anything", Some("Because of this."));
        check("a", "history 01", Some("That."));
        check("a", "history 011", None);
    }
}
