//! Patterns in `${v#p}`, `${v%p}` and `${v/p/r}`: `*` and `?`, with `\` to escape them.

use regex::{NoExpand, Regex};

/// `pattern` as a regular expression. `longest` makes `*` greedy; `at_start` ties it to the start of the text.
fn regex(pattern: &str, longest: bool, at_start: bool) -> Result<Regex, String> {
    let refuse =
        |problem: String| format!("invalid pattern ({pattern}) in substitution: {problem}");
    let mut expression = String::from(if at_start { "^" } else { "" });
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' => expression.push_str(if longest { ".*" } else { ".*?" }),
            '?' => expression.push('.'),
            // Braces and slashes are escaped for the substitution's sake, not for the pattern's.
            '\\' if matches!(chars.peek(), Some('}' | '/')) => {}
            '\\' => match chars.next() {
                Some(c @ ('*' | '?' | '\\')) => literal(&mut expression, c),
                Some(c) => return Err(refuse(format!("invalid escape '\\{c}'"))),
                None => return Err(refuse("it ends with an escape".to_owned())),
            },
            c => literal(&mut expression, c),
        }
    }
    Regex::new(&expression).map_err(|_| refuse("it is too complex".to_owned()))
}

fn literal(expression: &mut String, c: char) {
    expression.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
}

/// `value` without what `pattern` matches at its start.
pub(super) fn trim_start(pattern: &str, value: &str, longest: bool) -> Result<String, String> {
    let found = regex(pattern, longest, true)?
        .find(value)
        .map_or(0, |found| found.end());
    Ok(value[found..].to_owned())
}

/// `value` without what `pattern` matches at its end: both are turned round, so that shortest and longest keep their sense.
pub(super) fn trim_end(pattern: &str, value: &str, longest: bool) -> Result<String, String> {
    let backwards: String = value.chars().rev().collect();
    Ok(trim_start(&reverse(pattern), &backwards, longest)?
        .chars()
        .rev()
        .collect())
}

/// The pattern backwards; escapes stay before what they escape.
fn reverse(pattern: &str) -> String {
    let mut pieces = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        let escaped = if c == '\\' { chars.next() } else { None };
        pieces.push([Some(c), escaped]);
    }
    pieces.into_iter().rev().flatten().flatten().collect()
}

/// `value` with the first match, or `all` of them, replaced.
pub(super) fn replace(
    pattern: &str,
    replacement: &str,
    value: &str,
    all: bool,
) -> Result<String, String> {
    let regex = regex(pattern, true, false)?;
    let limit = if all { 0 } else { 1 };
    // An upper bound: every match grows the text by less than the replacement.
    let matches = regex
        .find_iter(value)
        .take(if all { usize::MAX } else { 1 })
        .count();
    if value.len() + matches.saturating_mul(replacement.len()) > crate::limits::WORD_BYTES {
        return Err("the replaced text is too large".to_owned());
    }
    Ok(regex
        .replacen(value, limit, NoExpand(replacement))
        .into_owned())
}
