//! Warnings, in the shape in which BuildKit's gateway takes them.

use crate::position::Lines;

/// One warning about a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// One line.
    pub short: String,
    /// More lines.
    pub detail: Vec<String>,
    /// Where the rule is explained.
    pub url: String,
    /// Where in the file.
    pub lines: Lines,
}

impl Warning {
    /// BuildKit's check `NoEmptyContinuation`: an empty line within an instruction that goes on. Name, texts and address
    /// are part of the interface.
    pub(crate) fn empty_continuation(line: u32) -> Self {
        Self {
            short: format!("NoEmptyContinuation: Empty continuation line (line {line})"),
            detail: vec![
                "Empty continuation lines will become errors in a future release".to_owned(),
            ],
            url: "https://docs.docker.com/go/dockerfile/rule/no-empty-continuation/".to_owned(),
            lines: Lines::one(line),
        }
    }
}
