//! Places in a Dockerfile.

use bollard_buildkit_proto::pb;

/// Lines of a file, counted from 1, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lines {
    /// First line.
    pub start: u32,
    /// Last line.
    pub end: u32,
}

impl Lines {
    /// One line.
    pub fn one(line: u32) -> Self {
        Self {
            start: line,
            end: line,
        }
    }

    /// As BuildKit's message, which counts lines from 1 too; whole lines have the column 0.
    pub fn to_pb(self) -> pb::Range {
        let position = |line: u32| pb::Position {
            line: i32::try_from(line).unwrap_or(i32::MAX),
            character: 0,
        };
        pb::Range {
            start: Some(position(self.start)),
            end: Some(position(self.end)),
        }
    }
}

/// The line (from 1) and column (from 1, in characters) where `token` first stands within `lines` of `source`; the first
/// line's first character that is no blank if it stands nowhere.
pub(crate) fn locate(source: &[u8], lines: Lines, token: &str) -> (u32, u32) {
    let first = (lines.start.max(1) - 1) as usize;
    let count = (lines.end.saturating_sub(lines.start) + 1) as usize;
    let mut fallback = None;
    for (number, line) in source
        .split(|&b| b == b'\n')
        .enumerate()
        .skip(first)
        .take(count)
    {
        let text = String::from_utf8_lossy(line);
        let column = |byte: usize| 1 + text[..byte].chars().count() as u32;
        if let Some(byte) = text.find(token).filter(|_| !token.is_empty()) {
            return (number as u32 + 1, column(byte));
        }
        let blank = text.len() - text.trim_start().len();
        fallback.get_or_insert((number as u32 + 1, column(blank)));
    }
    fallback.unwrap_or((lines.start.max(1), 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_within_its_lines() {
        let source = b"FROM a\n  RUN --foo \\\n  --bar x\n";
        let check = |start, end, token, expected| {
            assert_eq!(locate(source, Lines { start, end }, token), expected)
        };
        check(2, 3, "--bar", (3, 3));
        check(2, 3, "--foo", (2, 7));
        check(2, 3, "nowhere", (2, 3));
        check(1, 1, "--bar", (1, 1));
        check(9, 9, "x", (9, 1));
    }
}
