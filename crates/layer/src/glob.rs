//! Matching one path against one wildcard pattern, in time proportional to their lengths' product.
//!
//! Two dialects share the machine: Go's `path/filepath.Match` (sources of COPY with wildcards), and the one of
//! `.dockerignore` files as moby/patternmatcher reads them, which adds `**`. Lists of patterns with exceptions are in
//! [`pattern`](crate::Patterns).

/// A pattern that is not well-formed; Go's text for it is `syntax error in pattern`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern")]
pub struct BadPattern;

/// Whether a whole path matches, as Go's `filepath.Match`: `*` and `?` stop at slashes, `[a-z]`, `[^a]`, `\x` for x itself.
///
/// # Errors
///
/// A pattern that is not well-formed, whether or not the name would match.
pub fn glob_match(pattern: &[u8], name: &[u8]) -> Result<bool, BadPattern> {
    Ok(Glob::single(pattern)?.matches(name))
}

/// Whether a path has wildcards at all (a backslash takes the next character's meaning away).
pub fn has_wildcards(path: &[u8]) -> bool {
    let mut bytes = path.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => {
                bytes.next();
            }
            b'*' | b'?' | b'[' => return true,
            _ => {}
        }
    }
    false
}

/// A compiled pattern.
#[derive(Debug, Clone)]
pub(crate) enum Glob {
    Exact(Vec<u8>),
    /// Paths that end so, or are this without its leading slash: `**/x`, and also `**x`.
    Suffix(Vec<u8>),
    Machine(Vec<Token>),
}

/// One state of the machine. A rune is a character, or a byte that is no UTF-8 moved beyond all characters.
#[derive(Debug, Clone)]
pub(crate) enum Token {
    Rune(u32),
    /// Any but the slash.
    One,
    /// Any number of any but the slash.
    Star,
    /// Any number of anything.
    All,
    /// Nothing, or directories up to and with a slash: enters the next token or passes over it.
    DirsOrNothing,
    /// Within such directories.
    Dirs,
    Class {
        negated: bool,
        ranges: Vec<(u32, u32)>,
    },
}

impl Glob {
    /// Go's `filepath.Match`.
    pub(crate) fn single(pattern: &[u8]) -> Result<Self, BadPattern> {
        let tokens = compile(&runes(pattern), false)?;
        Ok(if has_wildcards(pattern) || pattern.contains(&b'\\') {
            Self::Machine(tokens)
        } else {
            Self::Exact(pattern.to_vec())
        })
    }

    /// One clean pattern of a `.dockerignore`.
    pub(crate) fn ignore(pattern: &[u8]) -> Result<Self, BadPattern> {
        compile(&runes(pattern), false)?;
        if !has_wildcards(pattern) && !pattern.contains(&b'\\') {
            return Ok(Self::Exact(pattern.to_vec()));
        }
        if let Some(rest) = pattern.strip_prefix(b"**")
            && !has_wildcards(rest)
            && !rest.iter().any(|byte| b"\\]".contains(byte))
        {
            return Ok(Self::Suffix(rest.to_vec()));
        }
        compile(&runes(pattern), true).map(Self::Machine)
    }

    /// Whether the whole path matches.
    pub(crate) fn matches(&self, path: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => exact == path,
            Self::Suffix(suffix) => {
                path.ends_with(suffix) || suffix.strip_prefix(b"/") == Some(path)
            }
            Self::Machine(tokens) => run(tokens, path),
        }
    }
}

const SLASH: u32 = '/' as u32;

fn runes(bytes: &[u8]) -> Vec<u32> {
    let mut out = Vec::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.extend(chunk.valid().chars().map(u32::from));
        out.extend(
            chunk
                .invalid()
                .iter()
                .map(|byte| 0x11_0000 + u32::from(*byte)),
        );
    }
    out
}

/// The machine's tokens. Without `double`, `**` is two stars.
fn compile(pattern: &[u32], double: bool) -> Result<Vec<Token>, BadPattern> {
    let is = |at: usize, char: char| pattern.get(at) == Some(&u32::from(char));
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < pattern.len() {
        if double && is(at, '*') && is(at + 1, '*') {
            at += if is(at + 2, '/') { 3 } else { 2 };
            if at < pattern.len() {
                tokens.extend([Token::DirsOrNothing, Token::Dirs]);
            } else {
                tokens.push(Token::All);
            }
            continue;
        }
        let rune = pattern[at];
        at += 1;
        tokens.push(match char::from_u32(rune) {
            Some('*') => Token::Star,
            Some('?') => Token::One,
            Some('[') => class(pattern, &mut at)?,
            Some('\\') => {
                let escaped = *pattern.get(at).ok_or(BadPattern)?;
                at += 1;
                Token::Rune(escaped)
            }
            _ => Token::Rune(rune),
        });
    }
    Ok(tokens)
}

/// A character class, from after its `[` to after its `]`.
fn class(pattern: &[u32], at: &mut usize) -> Result<Token, BadPattern> {
    let is = |at: usize, char: char| pattern.get(at) == Some(&u32::from(char));
    let negated = is(*at, '^');
    *at += usize::from(negated);
    let mut ranges = Vec::new();
    loop {
        if is(*at, ']') && !ranges.is_empty() {
            *at += 1;
            return Ok(Token::Class { negated, ranges });
        }
        let low = class_rune(pattern, at)?;
        let mut high = low;
        if is(*at, '-') {
            *at += 1;
            high = class_rune(pattern, at)?;
        }
        ranges.push((low, high));
    }
}

fn class_rune(pattern: &[u32], at: &mut usize) -> Result<u32, BadPattern> {
    let mut rune = *pattern.get(*at).ok_or(BadPattern)?;
    if rune == u32::from('-') || rune == u32::from(']') {
        return Err(BadPattern);
    }
    if rune == u32::from('\\') {
        *at += 1;
        rune = *pattern.get(*at).ok_or(BadPattern)?;
    }
    *at += 1;
    Ok(rune)
}

/// Runs all ways through the tokens side by side, so that no pattern takes exponential time.
fn run(tokens: &[Token], path: &[u8]) -> bool {
    let mut now = vec![false; tokens.len() + 1];
    let mut next = now.clone();
    enter(tokens, &mut now, 0);
    for rune in runes(path) {
        next.fill(false);
        for (at, token) in tokens.iter().enumerate() {
            if now[at] {
                step(tokens, &mut next, at, token, rune);
            }
        }
        std::mem::swap(&mut now, &mut next);
    }
    now[tokens.len()]
}

fn step(tokens: &[Token], next: &mut [bool], at: usize, token: &Token, rune: u32) {
    match token {
        Token::Rune(expected) if *expected == rune => enter(tokens, next, at + 1),
        Token::One if rune != SLASH => enter(tokens, next, at + 1),
        Token::Star if rune != SLASH => enter(tokens, next, at),
        Token::All => enter(tokens, next, at),
        Token::Dirs => {
            next[at] = true;
            if rune == SLASH {
                enter(tokens, next, at + 1);
            }
        }
        Token::Class { negated, ranges }
            if ranges
                .iter()
                .any(|(low, high)| (*low..=*high).contains(&rune))
                != *negated =>
        {
            enter(tokens, next, at + 1);
        }
        _ => {}
    }
}

/// Marks a state and those that are reached from it without a rune.
fn enter(tokens: &[Token], states: &mut [bool], mut at: usize) {
    loop {
        states[at] = true;
        match tokens.get(at) {
            Some(Token::Star | Token::All) => at += 1,
            Some(Token::DirsOrNothing) => {
                states[at + 1] = true;
                at += 2;
            }
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_paths_match_as_in_go() {
        let check = |pattern: &str, name: &str, expected: Result<bool, BadPattern>| {
            assert_eq!(
                glob_match(pattern.as_bytes(), name.as_bytes()),
                expected,
                "{pattern} {name}"
            );
        };
        check("abc", "abc", Ok(true));
        check("*", "abc", Ok(true));
        check("*c", "abc", Ok(true));
        check("a*", "ab/c", Ok(false));
        check("a*/b", "abc/b", Ok(true));
        check("a*/b", "a/c/b", Ok(false));
        check("a*b*c*d*e*/f", "axbxcxdxe/f", Ok(true));
        check("a*b*c*d*e*/f", "axbxcxdxexxx/fff", Ok(false));
        check("a*b?c*x", "abxbbxdbxebxczzx", Ok(true));
        check("ab[c]", "abc", Ok(true));
        check("ab[b-d]", "abc", Ok(true));
        check("ab[^c]", "abc", Ok(false));
        check("ab[^e-g]", "abc", Ok(true));
        check("a\\*b", "a*b", Ok(true));
        check("a\\*b", "ab", Ok(false));
        check("a?b", "a\u{263a}b", Ok(true));
        check("a???b", "a\u{263a}b", Ok(false));
        check("[a-\u{3b6}]*", "\u{3b1}", Ok(true));
        check("a?b", "a/b", Ok(false));
        check("[\\]a]", "]", Ok(true));
        check("[x\\-]", "-", Ok(true));
        check("**", "a/b", Ok(false));
        for bad in [
            "[]a]", "[-]", "[x-]", "[", "[^", "[^bc", "a[", "[a-b-c]", "\\",
        ] {
            check(bad, "a", Err(BadPattern));
        }
    }

    #[test]
    fn a_hostile_pattern_takes_no_exponential_time() {
        let pattern = "a*".repeat(200) + "b";
        assert_eq!(
            glob_match(pattern.as_bytes(), "a".repeat(2000).as_bytes()),
            Ok(false)
        );
    }

    #[test]
    fn names_that_are_no_utf8() {
        assert_eq!(glob_match(b"a?", b"a\xff"), Ok(true));
        assert_eq!(glob_match(b"a\xff", b"a\xff"), Ok(true));
        assert_eq!(glob_match(b"a\xfe*", b"a\xff"), Ok(false));
    }
}
