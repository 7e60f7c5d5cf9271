//! Parser directives: `# escape=`, `# syntax=`, `# check=` at the very top of the file, each at most once.
//!
//! As BuildKit reads them (`frontend/dockerfile/parser/directives.go`): the first line that is no directive ends them.

use std::collections::BTreeMap;

const KNOWN: [&str; 3] = ["syntax", "escape", "check"];
const BOM: &[u8] = b"\xef\xbb\xbf";

/// Reads directives line by line, until one is none.
#[derive(Debug, Default)]
pub(crate) struct Directives {
    done: bool,
    found: BTreeMap<String, String>,
}

impl Directives {
    /// Takes the next line, without its line end. Returns the directive that it is.
    pub(crate) fn line(&mut self, line: &[u8]) -> Result<Option<(String, String)>, String> {
        self.line_after("#", line)
    }

    fn line_after(
        &mut self,
        comment: &str,
        line: &[u8],
    ) -> Result<Option<(String, String)>, String> {
        if self.done {
            return Ok(None);
        }
        let text = line
            .strip_prefix(comment.as_bytes())
            .and_then(|rest| std::str::from_utf8(rest).ok());
        let Some((key, value)) = text
            .and_then(assignment)
            .filter(|(key, _)| KNOWN.contains(&key.as_str()))
        else {
            self.done = true;
            return Ok(None);
        };
        if self.found.contains_key(&key) {
            return Err(format!("only one {key} parser directive can be used"));
        }
        self.found.insert(key.clone(), value.clone());
        Ok(Some((key, value)))
    }

    /// The value of a directive that was found.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.found.get(key).map(String::as_str)
    }
}

/// `key = value`, the key in lowercase.
fn assignment(text: &str) -> Option<(String, String)> {
    let (key, value) = text.trim_start().split_once('=')?;
    let (key, value) = (key.trim_end(), value.trim());
    let well_formed = key.starts_with(|c: char| c.is_ascii_alphabetic())
        && key.chars().all(|c| c.is_ascii_alphanumeric());
    (well_formed && !value.is_empty()).then(|| (key.to_ascii_lowercase(), value.to_owned()))
}

/// The image named by a `syntax` directive, without what follows it on the line. Looks for `# syntax=`, then
/// `// syntax=`, then `{"syntax": …}`, behind a byte order mark and a `#!` line.
pub fn syntax_directive(bytes: &[u8]) -> Option<String> {
    let bytes = top(bytes);
    let value = directive(bytes, "#", "syntax")
        .or_else(|| directive(bytes, "//", "syntax"))
        .or_else(|| {
            serde_json::from_slice::<serde_json::Value>(bytes)
                .ok()?
                .get("syntax")?
                .as_str()
                .map(str::to_owned)
        })?;
    value.split(' ').next().map(str::to_owned)
}

/// The options of a `# check=` directive.
pub(crate) fn check_directive(bytes: &[u8]) -> Option<String> {
    directive(top(bytes), "#", "check")
}

fn top(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_prefix(BOM).unwrap_or(bytes);
    match bytes.starts_with(b"#!") {
        true => bytes
            .iter()
            .position(|&b| b == b'\n')
            .map_or(&[], |end| &bytes[end + 1..]),
        false => bytes,
    }
}

fn directive(bytes: &[u8], comment: &str, key: &str) -> Option<String> {
    let mut directives = Directives::default();
    for line in bytes.split(|&b| b == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if directives.line_after(comment, line).is_err() || directives.done {
            break;
        }
    }
    directives.get(key).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_syntax_image_is_found() {
        let check = |file: &str, expected| {
            assert_eq!(
                syntax_directive(file.as_bytes()).as_deref(),
                expected,
                "{file:?}"
            )
        };
        check(
            "# syntax=docker/dockerfile:1\nFROM a",
            Some("docker/dockerfile:1"),
        );
        check("#SYNTAX = a b c\r\nFROM a", Some("a"));
        check("# escape=`\n# syntax=a", Some("a"));
        check("\u{feff}#!/usr/bin/env x\n# syntax=a", Some("a"));
        check("// syntax=a\n{}", Some("a"));
        check("{\"syntax\": \"a\"}", Some("a"));
        check("#!/bin/sh\n{\"syntax\": \"a\"}", Some("a"));
        check("# a comment\n# syntax=a", None);
        check("\n# syntax=a", None);
        check("FROM a\n# syntax=a", None);
        check("# syntax=\nFROM a", None);
        check("# syntax=a\n# syntax=b", Some("a"));
        check("", None);
        check("#!", None);
    }

    #[test]
    fn check_options_are_found() {
        assert_eq!(
            check_directive(b"# syntax=a\n# check=skip=all;error=true\n").as_deref(),
            Some("skip=all;error=true")
        );
        assert_eq!(check_directive(b"// check=skip=all"), None);
    }

    #[test]
    fn a_directive_stands_once() {
        let mut directives = Directives::default();
        assert_eq!(
            directives.line(b"# escape=`"),
            Ok(Some(("escape".into(), "`".into())))
        );
        assert!(directives.line(b"# Escape=\\").is_err());
        assert_eq!(Directives::default().line(b"# unknown=1"), Ok(None));
    }
}
