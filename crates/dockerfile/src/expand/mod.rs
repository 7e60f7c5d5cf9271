//! Variable expansion and quote removal, as a shell does them.
//!
//! The forms, and what is left alone, as BuildKit has them (`frontend/dockerfile/shell/lex.go`): `$v ${v} ${v:-w} ${v-w}
//! ${v:+w} ${v+w} ${v:?w} ${v?w} ${v#p} ${v##p} ${v%p} ${v%%p} ${v/p/r} ${v//p/r}`, single and double quotes, the
//! escape character.

mod pattern;
mod scan;

use std::collections::{BTreeMap, BTreeSet};

use crate::limits::WORD_BYTES;
use scan::Scan;

/// Where variables come from.
pub(crate) trait Variables {
    fn get(&self, name: &str) -> Option<&str>;
}

/// No variable is set.
pub(crate) struct NoVariables;

impl Variables for NoVariables {
    fn get(&self, _: &str) -> Option<&str> {
        None
    }
}

impl Variables for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<&str> {
        BTreeMap::get(self, name).map(String::as_str)
    }
}

/// How to expand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expander {
    escape: char,
    keep_quotes: bool,
    keep_escapes: bool,
    ignore_quotes: bool,
    keep_unset: bool,
}

/// An expanded word.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Expansion {
    pub(crate) text: String,
    /// The text split at blanks outside of quotes; blanks that come out of variables split too.
    pub(crate) words: Vec<String>,
    /// Variables that were asked for and are not set.
    pub(crate) missing: BTreeSet<String>,
}

impl Expander {
    /// Expands variables, removes quotes and escapes; what is not set is empty.
    pub(crate) fn new(escape: char) -> Self {
        Self {
            escape,
            keep_quotes: false,
            keep_escapes: false,
            ignore_quotes: false,
            keep_unset: false,
        }
    }

    /// Quotes still quote but stay in the text.
    pub(crate) fn keep_quotes(self) -> Self {
        Self {
            keep_quotes: true,
            ..self
        }
    }

    /// Escapes still escape but stay in the text.
    pub(crate) fn keep_escapes(self) -> Self {
        Self {
            keep_escapes: true,
            ..self
        }
    }

    /// Quotes are characters as any other.
    pub(crate) fn ignore_quotes(self) -> Self {
        Self {
            ignore_quotes: true,
            ..self
        }
    }

    /// Variables that are not set stay as they are written.
    pub(crate) fn keep_unset(self) -> Self {
        Self {
            keep_unset: true,
            ..self
        }
    }

    /// Expands `word`.
    ///
    /// # Errors
    /// Says what is wrong: an open quote or brace, an unknown form, a bad pattern, too large an outcome.
    pub(crate) fn expand(
        &self,
        word: &str,
        variables: &dyn Variables,
    ) -> Result<Expansion, String> {
        let mut scan = Scan::new(*self, word, variables);
        let (text, words) = scan.until(None, self.keep_escapes)?;
        Ok(Expansion {
            text,
            words,
            missing: scan.missing,
        })
    }
}

/// Refuses texts that grew too large.
fn bounded(text: &str) -> Result<(), String> {
    match text.len() > WORD_BYTES {
        true => Err(format!(
            "the expanded text has more than {WORD_BYTES} bytes"
        )),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests;
