//! Splitting an instruction's text: keyword, flags, words.
//!
//! As BuildKit splits them (`frontend/dockerfile/parser/split_command.go`, `line_parsers.go`): flags lose their quotes,
//! words keep them for the expansion that follows.

/// An instruction's parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parts {
    pub(crate) keyword: String,
    /// `--name` or `--name=value`, unquoted.
    pub(crate) flags: Vec<String>,
    pub(crate) rest: String,
}

/// Splits off the keyword and the flags.
pub(crate) fn split(text: &str) -> Parts {
    let text = text.trim();
    let (keyword, rest) = text.split_at(text.find(is_blank).unwrap_or(text.len()));
    let (flags, rest) = flags(rest);
    Parts {
        keyword: keyword.to_owned(),
        flags,
        rest: rest.trim().to_owned(),
    }
}

/// The blanks that part words; a line end is none of them.
pub(crate) fn is_blank(c: char) -> bool {
    matches!(c, '\t' | '\x0b' | '\x0c' | '\r' | ' ')
}

/// Words starting with `--` at the front of `text`, and what follows them. A lone `--` ends them.
fn flags(text: &str) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = text.trim_start();
    while rest.starts_with("--") {
        let (flag, end) = flag(rest);
        rest = &rest[end..];
        if flag == "--" {
            break;
        }
        flags.push(flag);
        rest = rest.trim_start();
    }
    (flags, rest)
}

/// The word at the front without its quotes and backslashes, and where it ends.
fn flag(text: &str) -> (String, usize) {
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => return (word, at),
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (_, '\\') => word.extend(chars.next().map(|(_, c)| c)),
            (_, c) => word.push(c),
        }
    }
    (word, text.len())
}

/// Words parted by blanks, quotes and escapes kept. Quotes do not hide from each other, and an escape at the very end is
/// dropped.
pub(crate) fn quoted(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if word.is_none() && c.is_whitespace() {
            continue;
        }
        let open = word.get_or_insert_default();
        match quote {
            None if c.is_whitespace() => {
                words.extend(word.take().filter(|word| !word.is_empty()));
                continue;
            }
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(q) if q == c => quote = None,
            _ => {}
        }
        if c == escape && quote != Some('\'') {
            let Some(next) = chars.next() else { break };
            open.push(c);
            open.push(next);
            continue;
        }
        open.push(c);
    }
    words.extend(word.filter(|word| !word.is_empty()));
    words
}

/// Words parted by blanks, without any quoting.
pub(crate) fn plain(text: &str) -> Vec<String> {
    text.split(is_blank)
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The strings of a JSON array. `None` if it is no JSON array: then the text is not in JSON form.
///
/// # Errors
/// An array with other things than strings in it.
pub(crate) fn json(text: &str) -> Result<Option<Vec<String>>, String> {
    if !text.trim_start().starts_with('[') {
        return Ok(None);
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(text) else {
        return Ok(None);
    };
    values
        .into_iter()
        .map(|value| match value {
            serde_json::Value::String(text) => Ok(text),
            _ => Err(
                "when using JSON array syntax, arrays must be comprised of strings only".to_owned(),
            ),
        })
        .collect::<Result<_, _>>()
        .map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_split() {
        let check = |text: &str, keyword: &str, flags: &[&str], rest: &str| {
            let parts = split(text);
            assert_eq!(
                (parts.keyword.as_str(), parts.rest.as_str()),
                (keyword, rest),
                "{text:?}"
            );
            assert_eq!(parts.flags, flags, "{text:?}");
        };
        check("RUN  a b ", "RUN", &[], "a b");
        check("run", "run", &[], "");
        check(
            "COPY --from=a --link b c",
            "COPY",
            &["--from=a", "--link"],
            "b c",
        );
        check(
            "COPY\t--chown=\"a b\":c  x",
            "COPY",
            &["--chown=a b:c"],
            "x",
        );
        check(
            "RUN --mount=a\\ b,'c' x --y",
            "RUN",
            &["--mount=a b,c"],
            "x --y",
        );
        check("RUN -- --x", "RUN", &[], "--x");
        check("RUN -x --y", "RUN", &[], "-x --y");
        check("RUN --", "RUN", &[], "");
        check("RUN --a\\", "RUN", &["--a"], "");
        check("RUN --a='b", "RUN", &["--a=b"], "");
    }

    #[test]
    fn words_keep_their_quotes() {
        let check =
            |text: &str, expected: &[&str]| assert_eq!(quoted(text, '\\'), expected, "{text:?}");
        check("a=b  c=d ", &["a=b", "c=d"]);
        check("a=\"b c\" d='e f'", &["a=\"b c\"", "d='e f'"]);
        check(r"a=b\ c", &[r"a=b\ c"]);
        check(r#"a="b\" c" d"#, &[r#"a="b\" c""#, "d"]);
        check(r"a='b\' c", &[r"a='b\'", "c"]);
        check("a=\"b", &["a=\"b"]);
        check("\"\" x", &["\"\"", "x"]);
        check(r"a\", &["a"]);
        check("", &[]);
        check("a\u{a0}b", &["a", "b"]);
        assert_eq!(quoted("a=b` c\\ d", '`'), ["a=b` c\\", "d"]);
    }

    #[test]
    fn json_arrays_are_told_from_other_texts() {
        let strings = |text: &[&str]| Ok(Some(text.iter().map(|&t| t.to_owned()).collect()));
        assert_eq!(json(r#" ["a", "b\n"] "#), strings(&["a", "b\n"]));
        assert_eq!(json("[]"), strings(&[]));
        assert_eq!(json("[ -f x ] && y"), Ok(None));
        assert_eq!(json("['a']"), Ok(None));
        assert_eq!(json("a"), Ok(None));
        assert!(json("[1]").is_err());
    }
}
