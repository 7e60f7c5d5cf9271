//! Logical lines: continuations joined, comments dropped, directives obeyed.
//!
//! As BuildKit joins them (`frontend/dockerfile/parser/parser.go`): an escape character at the end of a line, followed by
//! nothing but blanks and not preceded by another one, continues the line; comments and empty lines in between are skipped.

use crate::error::{Fault, SyntaxError};
use crate::lex::directive::Directives;
use crate::position::Lines;

/// One instruction's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Logical {
    pub(crate) text: String,
    pub(crate) lines: Lines,
    /// An empty line was skipped within the instruction; this is its last line.
    pub(crate) empty_continuation: Option<u32>,
}

/// Reads a file line by line.
pub(crate) struct Reader<'a> {
    source: &'a [u8],
    rest: &'a [u8],
    line: u32,
    pub(crate) escape: char,
    pub(crate) directives: Directives,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(source: &'a [u8]) -> Self {
        let rest = source.strip_prefix(b"\xef\xbb\xbf").unwrap_or(source);
        Self {
            source,
            rest,
            line: 0,
            escape: '\\',
            directives: Directives::default(),
        }
    }

    /// The line read last, from 1; at least 1.
    pub(crate) fn line(&self) -> u32 {
        self.line.max(1)
    }

    /// The next physical line with its line end.
    pub(crate) fn physical(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let end = self
            .rest
            .iter()
            .position(|&b| b == b'\n')
            .map_or(self.rest.len(), |at| at + 1);
        let (line, rest) = self.rest.split_at(end);
        self.rest = rest;
        self.line += 1;
        Some(line)
    }

    /// The next line that carries an instruction.
    pub(crate) fn logical(&mut self) -> Result<Option<Logical>, SyntaxError> {
        while let Some(line) = self.physical() {
            let line = trim_start(trim_line_end(line));
            self.directive(line)?;
            if is_comment(line) || line.is_empty() {
                continue;
            }
            return self.continued(line).map(Some);
        }
        Ok(None)
    }

    /// `first` and the lines that continue it.
    fn continued(&mut self, first: &[u8]) -> Result<Logical, SyntaxError> {
        let start = self.line;
        let (part, mut goes_on) = cut_continuation(first, self.escape);
        let mut bytes = part.to_vec();
        let mut empty = false;
        while goes_on {
            let Some(line) = self.physical() else { break };
            let line = trim_line_end(line);
            self.directive(line)?;
            if is_comment(line) {
                continue;
            }
            if trim_start(line).is_empty() {
                empty = true;
                continue;
            }
            let (part, more) = cut_continuation(line, self.escape);
            bytes.extend_from_slice(part);
            goes_on = more;
        }
        let lines = Lines {
            start,
            end: self.line,
        };
        let text = String::from_utf8(bytes).map_err(|_| {
            Fault::new("the instruction is not UTF-8 text").within(self.source, lines)
        })?;
        Ok(Logical {
            text,
            lines,
            empty_continuation: empty.then_some(self.line),
        })
    }

    fn directive(&mut self, line: &[u8]) -> Result<(), SyntaxError> {
        let refuse = |message: String, token: &str| {
            Fault::new(message)
                .at(token)
                .within(self.source, Lines::one(self.line))
        };
        match self.directives.line(line) {
            Err(message) => Err(refuse(message, "")),
            Ok(Some((key, value))) if key == "escape" => match value.as_str() {
                "\\" | "`" => {
                    self.escape = if value == "`" { '`' } else { '\\' };
                    Ok(())
                }
                _ => Err(refuse(
                    format!("invalid escape token '{value}' does not match ` or \\"),
                    &value,
                )),
            },
            Ok(_) => Ok(()),
        }
    }
}

/// The line without the escape character that continues it, and whether there was one.
fn cut_continuation(line: &[u8], escape: char) -> (&[u8], bool) {
    let end = line
        .iter()
        .rposition(|&b| b != b' ' && b != b'\t')
        .map_or(0, |at| at + 1);
    let escape = escape as u8;
    match &line[..end] {
        [part @ .., last] if *last == escape && part.last() != Some(&escape) => (part, true),
        _ => (line, false),
    }
}

pub(crate) fn trim_line_end(line: &[u8]) -> &[u8] {
    let end = line
        .iter()
        .rposition(|&b| b != b'\n' && b != b'\r')
        .map_or(0, |at| at + 1);
    &line[..end]
}

fn trim_start(line: &[u8]) -> &[u8] {
    let start = line
        .iter()
        .position(|b| !b.is_ascii_whitespace() && *b != 0x0b)
        .unwrap_or(line.len());
    &line[start..]
}

fn is_comment(line: &[u8]) -> bool {
    trim_start(line).first() == Some(&b'#')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(file: &str, expected: &[(&str, u32, u32)]) {
        let mut reader = Reader::new(file.as_bytes());
        let mut found = Vec::new();
        while let Some(line) = reader.logical().expect("the file is sound") {
            found.push((line.text, line.lines.start, line.lines.end));
        }
        let expected: Vec<_> = expected
            .iter()
            .map(|&(text, start, end)| (text.to_owned(), start, end))
            .collect();
        assert_eq!(found, expected, "{file:?}");
    }

    #[test]
    fn lines_are_joined() {
        check("FROM a\nRUN b", &[("FROM a", 1, 1), ("RUN b", 2, 2)]);
        check("  FROM a  \n\n\n", &[("FROM a  ", 1, 1)]);
        check("RUN a \\\n  b", &[("RUN a   b", 1, 2)]);
        check(
            "RUN a\\  \t\nb\\\nc\nRUN d",
            &[("RUN abc", 1, 3), ("RUN d", 4, 4)],
        );
        check("RUN a\\\\\nRUN b", &[("RUN a\\\\", 1, 1), ("RUN b", 2, 2)]);
        check("RUN a \\\n# no\n  # no \\\n\n b", &[("RUN a  b", 1, 5)]);
        check("RUN a \\\n\\\nb", &[("RUN a b", 1, 3)]);
        check("RUN a \\", &[("RUN a ", 1, 1)]);
        check(
            "# c\nRUN a\r\n#\nRUN b \\\r\nc\r\n",
            &[("RUN a", 2, 2), ("RUN b c", 4, 5)],
        );
        check("\u{feff}FROM a", &[("FROM a", 1, 1)]);
        check("", &[]);
        check("# only\n\n", &[]);
    }

    #[test]
    fn the_escape_character_can_be_chosen() {
        check(
            "# escape=`\nRUN a`\nb\\\nRUN c",
            &[("RUN ab\\", 2, 3), ("RUN c", 4, 4)],
        );
        check(
            "\n# escape=`\nRUN a`\nRUN b",
            &[("RUN a`", 3, 3), ("RUN b", 4, 4)],
        );
        check("#!/bin/x\n# escape=`\nRUN a`", &[("RUN a`", 3, 3)]);
    }

    #[test]
    fn empty_continuations_are_noticed() {
        let mut reader = Reader::new(b"RUN a \\\n\nb\nRUN c \\\n#\nd");
        let mut next = || {
            reader
                .logical()
                .expect("sound")
                .expect("there")
                .empty_continuation
        };
        assert_eq!((next(), next()), (Some(3), None));
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        let refused = |file: &[u8]| Reader::new(file).logical().expect_err("it is wrong");
        assert_eq!(refused(b"# escape=x\nFROM a").column, 10);
        assert_eq!(refused(b"# escape=`\n# escape=`\n").line, 2);
        assert_eq!(
            refused(b"# \xff\nRUN a \\\n \xff\n").lines,
            Lines { start: 2, end: 3 }
        );
    }
}
