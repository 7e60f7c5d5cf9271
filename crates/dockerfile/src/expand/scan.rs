//! The scanner behind [`Expander`].

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::str::Chars;

use super::{Expander, Variables, bounded, pattern};
use crate::limits::NESTING;

/// The state of one expansion.
pub(super) struct Scan<'a> {
    how: Expander,
    chars: Peekable<Chars<'a>>,
    variables: &'a dyn Variables,
    keep_escapes: bool,
    depth: usize,
    pub(super) missing: BTreeSet<String>,
}

/// Collects words.
#[derive(Default)]
struct Words {
    word: String,
    open: bool,
    words: Vec<String>,
}

impl Words {
    /// A character that splits if it is blank.
    fn push(&mut self, c: char) {
        if !c.is_whitespace() {
            self.raw(c);
        } else if self.open && !self.word.is_empty() {
            self.words.push(std::mem::take(&mut self.word));
            self.open = false;
        }
    }

    fn raw(&mut self, c: char) {
        self.word.push(c);
        self.open = true;
    }

    fn raw_text(&mut self, text: &str) {
        self.word.push_str(text);
        self.open = true;
    }

    fn finish(mut self) -> Vec<String> {
        if !self.word.is_empty() {
            self.words.push(self.word);
        }
        self.words
    }
}

impl<'a> Scan<'a> {
    pub(super) fn new(how: Expander, text: &'a str, variables: &'a dyn Variables) -> Self {
        let chars = text.chars().peekable();
        Self {
            how,
            chars,
            variables,
            keep_escapes: how.keep_escapes,
            depth: 0,
            missing: BTreeSet::new(),
        }
    }

    /// Expands up to `stop`, which is taken, or to the end.
    pub(super) fn until(
        &mut self,
        stop: Option<char>,
        keep_escapes: bool,
    ) -> Result<(String, Vec<String>), String> {
        let outer = std::mem::replace(&mut self.keep_escapes, keep_escapes);
        self.depth += 1;
        if self.depth > NESTING {
            return Err(format!("substitutions are nested more than {NESTING} deep"));
        }
        let result = self.run(stop);
        self.depth -= 1;
        self.keep_escapes = outer;
        result
    }

    fn run(&mut self, stop: Option<char>) -> Result<(String, Vec<String>), String> {
        let mut text = String::new();
        let mut words = Words::default();
        while let Some(&c) = self.chars.peek() {
            bounded(&text)?;
            if Some(c) == stop {
                self.chars.next();
                return Ok((text, words.finish()));
            }
            match c {
                '$' => {
                    let value = self.dollar()?;
                    value.chars().for_each(|c| words.push(c));
                    text.push_str(&value);
                }
                '\'' | '"' if !self.how.ignore_quotes => {
                    let quoted = if c == '"' {
                        self.double_quoted()?
                    } else {
                        self.single_quoted()?
                    };
                    words.raw_text(&quoted);
                    text.push_str(&quoted);
                }
                '<' => {
                    let mark = self.less();
                    words.raw_text(&mark);
                    text.push_str(&mark);
                }
                _ => self.character(&mut text, &mut words),
            }
        }
        bounded(&text)?;
        match stop {
            Some(stop) => Err(format!(
                "unexpected end of statement while looking for matching {stop}"
            )),
            None => Ok((text, words.finish())),
        }
    }

    /// A plain character or an escaped one.
    fn character(&mut self, text: &mut String, words: &mut Words) {
        let Some(c) = self.chars.next() else { return };
        if c != self.how.escape {
            words.push(c);
            text.push(c);
            return;
        }
        if self.keep_escapes {
            words.raw(c);
            text.push(c);
        }
        if let Some(c) = self.chars.next() {
            words.raw(c);
            text.push(c);
        }
    }

    /// `<`, or `<<` with the blanks behind it: they belong to the word of a heredoc.
    fn less(&mut self) -> String {
        let mut text = String::new();
        text.extend(self.chars.next_if_eq(&'<'));
        if self.chars.next_if_eq(&'<').is_some() {
            text.push('<');
            while let Some(blank) = self.chars.next_if(|c| c.is_whitespace()) {
                text.push(blank);
            }
        }
        text
    }

    fn single_quoted(&mut self) -> Result<String, String> {
        let mut text = String::new();
        text.extend(self.chars.next().filter(|_| self.how.keep_quotes));
        for c in self.chars.by_ref() {
            if c == '\'' {
                text.extend(self.how.keep_quotes.then_some(c));
                return Ok(text);
            }
            text.push(c);
        }
        Err("unexpected end of statement while looking for matching single-quote".to_owned())
    }

    /// Within double quotes only `"`, `$` and the escape character can be escaped.
    fn double_quoted(&mut self) -> Result<String, String> {
        let mut text = String::new();
        text.extend(self.chars.next().filter(|_| self.how.keep_quotes));
        while let Some(&c) = self.chars.peek() {
            bounded(&text)?;
            if c == '$' {
                text.push_str(&self.dollar()?);
                continue;
            }
            self.chars.next();
            if c == '"' {
                text.extend(self.how.keep_quotes.then_some(c));
                return Ok(text);
            }
            if c != self.how.escape {
                text.push(c);
                continue;
            }
            text.extend(self.keep_escapes.then_some(c));
            match self.chars.peek() {
                Some(&next) if next == '"' || next == '$' || next == self.how.escape => {
                    text.push(next);
                    self.chars.next();
                }
                Some(_) => text.push(c),
                None => {}
            }
        }
        Err("unexpected end of statement while looking for matching double-quote".to_owned())
    }

    fn dollar(&mut self) -> Result<String, String> {
        self.chars.next();
        if self.chars.next_if_eq(&'{').is_some() {
            return self.braces();
        }
        let name = self.name();
        if name.is_empty() {
            return Ok("$".to_owned());
        }
        Ok(match self.value(&name) {
            None if self.how.keep_unset => format!("${name}"),
            value => value.unwrap_or_default(),
        })
    }

    /// What follows `${`.
    fn braces(&mut self) -> Result<String, String> {
        match self.chars.peek() {
            None => return Err("syntax error: missing '}'".to_owned()),
            Some('{' | '}' | ':') => return Err("syntax error: bad substitution".to_owned()),
            Some(_) => {}
        }
        let name = self.name();
        match self.chars.next() {
            None => Err("syntax error: missing '}'".to_owned()),
            Some('}') => Ok(match self.value(&name) {
                None if self.how.keep_unset => format!("${{{name}}}"),
                value => value.unwrap_or_default(),
            }),
            Some(':') => match self.chars.next() {
                Some(c) => self.modified(&name, c, true),
                None => Err("syntax error: missing '}'".to_owned()),
            },
            Some('/') => self.replaced(&name),
            Some(c) => self.modified(&name, c, false),
        }
    }

    /// `${name-word}` and its kin; `colon` makes an empty value count as none.
    fn modified(&mut self, name: &str, modifier: char, colon: bool) -> Result<String, String> {
        let written = format!("{}{modifier}", if colon { ":" } else { "" });
        let trims = matches!(modifier, '#' | '%');
        if !matches!(modifier, '+' | '-' | '?') && (colon || !trims) {
            return Err(format!("unsupported modifier ({written}) in substitution"));
        }
        let word = self
            .until(Some('}'), trims)
            .map_err(|e| self.missing_brace(e))?
            .0;
        let value = self.value(name);
        if value.is_none() && self.how.keep_unset {
            return Ok(format!("${{{name}{written}{word}}}"));
        }
        let set = value
            .as_ref()
            .is_some_and(|value| !(colon && value.is_empty()));
        let value = value.unwrap_or_default();
        match modifier {
            '-' if !set => Ok(word),
            '+' if !set => Ok(String::new()),
            '+' => Ok(word),
            '?' if !set => {
                let reason = if colon {
                    "is not allowed to be empty"
                } else {
                    "is not allowed to be unset"
                };
                Err(format!(
                    "{name}: {}",
                    if word.is_empty() { reason } else { &word }
                ))
            }
            '#' | '%' => trim(&word, &value, modifier),
            _ => Ok(value),
        }
    }

    /// `${name/pattern/replacement}`.
    fn replaced(&mut self, name: &str) -> Result<String, String> {
        let all = self.chars.next_if_eq(&'/').is_some();
        let found = self.until(Some('/'), true);
        let pattern = match found {
            Err(_) if self.chars.peek().is_none() => {
                return Err("syntax error: missing '/' in ${}".to_owned());
            }
            found => found?.0,
        };
        let replacement = self
            .until(Some('}'), true)
            .map_err(|e| self.missing_brace(e))?
            .0;
        match self.value(name) {
            None if self.how.keep_unset => Ok(format!("${{{name}/{pattern}/{replacement}}}")),
            value => pattern::replace(&pattern, &replacement, &value.unwrap_or_default(), all),
        }
    }

    fn missing_brace(&mut self, error: String) -> String {
        let at_end = self.chars.peek().is_none() && error.starts_with("unexpected end");
        if at_end {
            "syntax error: missing '}'".to_owned()
        } else {
            error
        }
    }

    /// A name: letters, digits and `_`; digits alone; or one of the shell's special parameters.
    fn name(&mut self) -> String {
        let mut name = String::new();
        if let Some(special) = self.chars.next_if(|c| "@*#?-$!".contains(*c)) {
            return special.to_string();
        }
        let digits = self.chars.peek().is_some_and(|c| c.is_ascii_digit());
        while let Some(c) = self.chars.next_if(|&c| match digits {
            true => c.is_ascii_digit(),
            false => c.is_alphanumeric() || c == '_',
        }) {
            name.push(c);
        }
        name
    }

    fn value(&mut self, name: &str) -> Option<String> {
        let value = self.variables.get(name).map(str::to_owned);
        if value.is_none() {
            self.missing.insert(name.to_owned());
        }
        value
    }
}

fn trim(word: &str, value: &str, modifier: char) -> Result<String, String> {
    let (pattern, longest) = word
        .strip_prefix(modifier)
        .map_or((word, false), |rest| (rest, true));
    match modifier {
        '#' => pattern::trim_start(pattern, value, longest),
        _ => pattern::trim_end(pattern, value, longest),
    }
}
