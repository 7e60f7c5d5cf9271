//! What can be wrong with a Dockerfile before anything is built.

use crate::position::{Lines, locate};
use crate::suggest;

/// A Dockerfile that cannot be read. Positions lie within the file (an empty file has line 1).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("dockerfile parse error on line {line}: {message}{}", suggest::hint(self.suggestion.as_deref()))]
pub struct SyntaxError {
    /// The instruction's lines.
    pub lines: Lines,
    /// The line to point at, from 1.
    pub line: u32,
    /// The character to point at, from 1.
    pub column: u32,
    /// What is wrong.
    pub message: String,
    /// What was probably meant.
    pub suggestion: Option<String>,
}

/// The most that is shown of a line, in characters.
const SHOWN: usize = 120;

impl SyntaxError {
    /// The line in question, and below it a caret under the character to point at.
    pub fn pointer(&self, source: &[u8]) -> String {
        let text = String::from_utf8_lossy(source);
        let line = (self.line as usize).saturating_sub(1);
        let line = text.lines().nth(line).unwrap_or_default();
        let column = (self.column as usize).saturating_sub(1);
        // Of a long line, the part around the character.
        let from = (column + 20).saturating_sub(SHOWN);
        let shown: String = line.chars().skip(from).take(SHOWN).collect();
        let pad: String = shown
            .chars()
            .chain(std::iter::repeat(' '))
            .take(column - from)
            .map(|char| if char == '\t' { '\t' } else { ' ' })
            .collect();
        format!("{}\n{pad}^", shown.trim_end())
    }
}

/// What is wrong with an instruction, before its place in the file is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) message: String,
    pub(crate) suggestion: Option<String>,
    /// The text to point at.
    pub(crate) token: String,
}

impl Fault {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            suggestion: None,
            token: String::new(),
        }
    }

    #[must_use]
    pub(crate) fn at(mut self, token: impl Into<String>) -> Self {
        self.token = token.into();
        self
    }

    #[must_use]
    pub(crate) fn suggest(mut self, suggestion: Option<String>) -> Self {
        self.suggestion = suggestion;
        self
    }

    pub(crate) fn within(self, source: &[u8], lines: Lines) -> SyntaxError {
        let (line, column) = locate(source, lines, &self.token);
        SyntaxError {
            lines,
            line,
            column,
            message: self.message,
            suggestion: self.suggestion,
        }
    }
}

/// A Dockerfile that can be read but not built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct ConvertError {
    /// The lines of the instruction; none where the request is at fault, not the file.
    pub lines: Option<Lines>,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a Dockerfile that can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// `--target` names no stage.
    #[error("target stage {target:?} could not be found{}", suggest::hint(.suggestion.as_deref()))]
    UnknownTarget {
        /// The name asked for.
        target: String,
        /// A stage with a similar name.
        suggestion: Option<String>,
    },
    /// `--from=N` beyond the last stage.
    #[error("invalid stage index {0}")]
    UnknownIndex(String),
    /// Stages that need each other.
    #[error("circular dependency detected on stage: {0}")]
    Cycle(String),
    /// A stage that is used above its definition.
    #[error(
        "cannot {what} stage {from:?}, it needs to be defined before current stage {current:?}"
    )]
    DefinedLater {
        /// `copy from` or `mount from`.
        what: &'static str,
        /// The stage used.
        from: String,
        /// The stage that uses it.
        current: String,
    },
    /// The name of a base image is empty after expansion.
    #[error("base name ({0}) should not be blank")]
    BlankBase(String),
    /// A base image whose name is no image reference.
    #[error("failed to parse stage name {name:?}: {problem}")]
    BadReference {
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// `--platform` is empty after expansion.
    #[error("empty platform value from expression {expression}{}", suggest::hint(.suggestion.as_deref()))]
    EmptyPlatform {
        /// As written.
        expression: String,
        /// The argument that was probably meant.
        suggestion: Option<String>,
    },
    /// `--platform` is no platform.
    #[error("failed to parse platform {expression}: {problem}")]
    BadPlatform {
        /// As written.
        expression: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A variable could not be expanded.
    #[error("failed to process {word:?}: {problem}")]
    Expansion {
        /// The word.
        word: String,
        /// What is wrong with it.
        problem: String,
    },
    /// An argument that is wrong after expansion.
    #[error("{0}")]
    Invalid(String),
    /// A part of the language that this engine does not do yet.
    #[error("{0} is not supported yet")]
    Unsupported(String),
    /// A trigger of the base image that cannot be run.
    #[error("ONBUILD trigger {trigger:?} cannot be used: {problem}")]
    BadTrigger {
        /// The trigger.
        trigger: String,
        /// What is wrong with it.
        problem: String,
    },
    /// There are no stages.
    #[error("dockerfile contains no stages to build")]
    NoStages,
    /// A limit of [`crate::limits`] was passed.
    #[error("the build has more than {limit} {what}")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// How much is allowed.
        limit: usize,
    },
}

impl Problem {
    pub(crate) fn at(self, lines: Lines) -> ConvertError {
        ConvertError {
            lines: Some(lines),
            problem: self,
        }
    }
}

impl From<Problem> for ConvertError {
    fn from(problem: Problem) -> Self {
        Self {
            lines: None,
            problem,
        }
    }
}
