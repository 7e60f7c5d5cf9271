//! The end of a build: warnings, the failed step's last output, and the Dockerfile's lines with `>>>` at the failure.

use std::fmt::Write;

use super::Board;
use crate::buildkit::{ErrorDetails, SourceSnippet};

/// Lines shown before and after the failure.
const AROUND: u32 = 3;
/// Warnings beyond these are only counted.
const MAX_WARNINGS: usize = 50;

/// What is printed in front of the error itself; empty when there is nothing to add.
pub fn render_error(board: Option<&Board>, details: &ErrorDetails) -> String {
    let mut text = String::new();
    let failed = board.and_then(|board| {
        let by_digest = details
            .vertex
            .as_deref()
            .and_then(|digest| board.by_digest(digest));
        by_digest.or_else(|| {
            board
                .steps()
                .iter()
                .find(|step| !step.error.is_empty() && !step.canceled())
        })
    });
    if let Some(step) = failed.filter(|step| !step.tail.is_empty()) {
        let _ = writeln!(text, "------\n > {}:", step.title());
        for line in &step.tail {
            let _ = writeln!(text, "{line}");
        }
        let _ = writeln!(text, "------");
    }
    for source in &details.sources {
        snippet(&mut text, source);
    }
    text
}

/// The warnings of a build, as a list; empty when there are none.
pub(crate) fn render_warnings(board: &Board) -> String {
    let warnings = board.warnings();
    let mut text = String::new();
    if warnings.is_empty() {
        return text;
    }
    let noun = if warnings.len() == 1 {
        "warning"
    } else {
        "warnings"
    };
    let _ = writeln!(text, "\n {} {noun} found:", warnings.len());
    for warning in warnings.iter().take(MAX_WARNINGS) {
        let _ = writeln!(text, " - {}", String::from_utf8_lossy(&warning.short));
        for detail in &warning.detail {
            let _ = writeln!(text, "   {}", String::from_utf8_lossy(detail));
        }
        if !warning.url.is_empty() {
            let _ = writeln!(text, "   More info: {}", warning.url);
        }
    }
    text
}

fn snippet(text: &mut String, source: &SourceSnippet) {
    let lines: Vec<&str> = source.text.lines().collect();
    let count = u32::try_from(lines.len()).unwrap_or(u32::MAX);
    let Some(first) = source
        .ranges
        .iter()
        .map(|range| range.first)
        .min()
        .filter(|first| *first <= count)
    else {
        return;
    };
    let last = source
        .ranges
        .iter()
        .map(|range| range.last)
        .max()
        .unwrap_or(first)
        .min(count);
    let _ = writeln!(text, "{}:{first}\n--------------------", source.filename);
    for number in first.saturating_sub(AROUND).max(1)..=last.saturating_add(AROUND).min(count) {
        let inside = source
            .ranges
            .iter()
            .any(|range| (range.first..=range.last).contains(&number));
        let mark = if inside { ">>>" } else { "   " };
        let line = lines[number as usize - 1];
        let _ = writeln!(
            text,
            "{}",
            format!("{number:>4} | {mark} {line}").trim_end()
        );
    }
    let _ = writeln!(text, "--------------------");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buildkit::SourceRange;

    #[test]
    fn the_lines_around_the_failure_are_marked() {
        let source = SourceSnippet {
            filename: "Dockerfile".into(),
            text: "FROM a\n\nRUN one && \\\n  two\nRUN three\nRUN four\nRUN five\nRUN six\n".into(),
            ranges: vec![SourceRange { first: 3, last: 4 }],
        };
        let details = ErrorDetails {
            vertex: None,
            sources: vec![source],
        };
        assert_eq!(
            render_error(None, &details),
            "Dockerfile:3\n--------------------\n   1 |     FROM a\n   2 |\n   3 | >>> RUN one && \\\n   4 | >>>   two\n   \
             5 |     RUN three\n   6 |     RUN four\n   7 |     RUN five\n--------------------\n"
        );
    }

    #[test]
    fn ranges_outside_the_file_are_passed_over() {
        let source = SourceSnippet {
            filename: "D".into(),
            text: "FROM a\n".into(),
            ranges: vec![SourceRange { first: 9, last: 9 }],
        };
        assert_eq!(
            render_error(
                None,
                &ErrorDetails {
                    vertex: None,
                    sources: vec![source]
                }
            ),
            ""
        );
    }
}
