//! Heredocs: `<<EOF`, `<<-EOF`, `<<"EOF"`, `3<<EOF`.

use crate::error::{Fault, SyntaxError};
use crate::expand::{Expander, NoVariables};
use crate::lex::lines::{Reader, trim_line_end};
use crate::position::Lines;

/// One heredoc of an instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The word that ends it.
    pub name: String,
    /// Variables in it are expanded (its word was not quoted).
    pub expand: bool,
    /// Leading tabs are to be stripped from its lines.
    pub chomp: bool,
    /// Its lines, line ends and leading tabs included.
    pub content: String,
}

impl Heredoc {
    /// The content as it is meant: without leading tabs where `<<-` was used.
    pub fn text(&self) -> String {
        if !self.chomp {
            return self.content.clone();
        }
        self.content
            .split_inclusive('\n')
            .map(|line| line.trim_start_matches('\t'))
            .collect()
    }
}

/// The heredoc that a word begins, without content.
pub(crate) fn mark(word: &str) -> Option<Heredoc> {
    let rest = word
        .trim_start_matches(|c: char| c.is_ascii_digit())
        .strip_prefix("<<")?;
    let (chomp, rest) = rest
        .strip_prefix('-')
        .map_or((false, rest), |rest| (true, rest));
    let rest = rest.trim_start();
    if rest.is_empty() || rest.contains('<') {
        return None;
    }
    let plain = Expander::new('\\').keep_unset();
    let words = plain.expand(rest, &NoVariables).ok()?.words;
    let raw = plain.keep_quotes().expand(rest, &NoVariables).ok()?.words;
    let ([name], [raw]) = (&words[..], &raw[..]) else {
        return None;
    };
    let quotes = |text: &str| text.chars().filter(|&c| c == '\'' || c == '"').count();
    let expand = quotes(name) == quotes(raw);
    Some(Heredoc {
        name: name.clone(),
        expand,
        chomp,
        content: String::new(),
    })
}

/// The heredocs that an instruction's text begins, in their order.
pub(crate) fn marks(text: &str) -> Vec<Heredoc> {
    if !text.contains("<<") {
        return Vec::new();
    }
    let expander = Expander::new('\\')
        .keep_quotes()
        .keep_escapes()
        .keep_unset();
    let words = expander
        .expand(text, &NoVariables)
        .map(|found| found.words)
        .unwrap_or_default();
    words.iter().filter_map(|word| mark(word)).collect()
}

/// Reads the contents of an instruction's heredocs, one after the other. Returns the last line.
pub(crate) fn read(
    heredocs: &mut [Heredoc],
    reader: &mut Reader<'_>,
    source: &[u8],
    lines: Lines,
) -> Result<u32, SyntaxError> {
    for heredoc in heredocs {
        let mut content = Vec::new();
        loop {
            let refuse = |message: &str, end| {
                let token = format!("<<{}", if heredoc.chomp { "-" } else { "" });
                Fault::new(message)
                    .at(token)
                    .within(source, Lines { end, ..lines })
            };
            let Some(line) = reader.physical() else {
                return Err(refuse(
                    &format!("unterminated heredoc {:?}", heredoc.name),
                    reader.line(),
                ));
            };
            let mut end = trim_line_end(line);
            while let (true, Some(rest)) = (heredoc.chomp, end.strip_prefix(b"\t")) {
                end = rest;
            }
            if end == heredoc.name.as_bytes() {
                heredoc.content = String::from_utf8(content)
                    .map_err(|_| refuse("the heredoc is not UTF-8 text", reader.line()))?;
                break;
            }
            content.extend_from_slice(line);
        }
    }
    Ok(reader.line())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found() {
        let check = |text: &str, expected: &[(&str, bool, bool)]| {
            let found: Vec<_> = marks(text)
                .into_iter()
                .map(|h| (h.name, h.expand, h.chomp))
                .collect();
            let expected: Vec<_> = expected
                .iter()
                .map(|&(name, e, c)| (name.to_owned(), e, c))
                .collect();
            assert_eq!(found, expected, "{text:?}");
        };
        check("RUN <<EOF", &[("EOF", true, false)]);
        check("RUN <<-EOF bash", &[("EOF", true, true)]);
        check("RUN << EOF", &[("EOF", true, false)]);
        check("RUN <<'EOF'", &[("EOF", false, false)]);
        check("RUN <<E\"O\"F", &[("EOF", false, false)]);
        check(
            "RUN 3<<EOF cat <<A <<B",
            &[("EOF", true, false), ("A", true, false), ("B", true, false)],
        );
        check("RUN <<$EOF", &[("$EOF", true, false)]);
        check("RUN <<'one two'", &[("one two", false, false)]);
        check("RUN cat <<<EOF", &[]);
        check("RUN \"<<EOF\"", &[]);
        check("RUN echo a << ", &[]);
        check("RUN echo $((1<<2))", &[]);
        check("RUN echo \"unclosed <<EOF", &[]);
    }

    #[test]
    fn contents_are_read() {
        let source = b"RUN <<A <<-B\none\n\tA\nA\n\t\ttwo\n\tB\nRUN c";
        let mut reader = Reader::new(source);
        let line = reader.logical().expect("sound").expect("there");
        let mut heredocs = marks(&line.text);
        let end = read(&mut heredocs, &mut reader, source, line.lines).expect("they end");
        assert_eq!(end, 6);
        assert_eq!(
            (heredocs[0].text().as_str(), heredocs[1].text().as_str()),
            ("one\n\tA\n", "two\n")
        );
        assert_eq!(
            reader.logical().expect("sound").expect("there").lines,
            Lines::one(7)
        );
    }

    #[test]
    fn one_without_end_is_refused() {
        let source = b"RUN a \\\n <<EOF\nx\n";
        let mut reader = Reader::new(source);
        let line = reader.logical().expect("sound").expect("there");
        let error = read(&mut marks(&line.text), &mut reader, source, line.lines)
            .expect_err("it does not end");
        assert_eq!((error.line, error.column, error.lines.end), (2, 2, 3));
    }
}
