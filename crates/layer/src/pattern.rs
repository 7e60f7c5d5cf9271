//! Lists of patterns with exceptions: `.dockerignore`, `--exclude`, include and exclude patterns of a copy.
//!
//! The rules are those of moby/patternmatcher: the last pattern that matches a path or a directory above it decides;
//! `!` makes an exception; `*` and `?` stop at slashes, `**` does not; `**` in the middle also stands for nothing. Reading a
//! `.dockerignore` file (comments, leading slashes) is not done here.

use crate::glob::{BadPattern, Glob};
use crate::path;

/// A list of patterns.
#[derive(Debug, Clone, Default)]
pub struct Patterns {
    patterns: Vec<Pattern>,
}

#[derive(Debug, Clone)]
struct Pattern {
    /// Index in the list that the patterns came from.
    line: usize,
    /// The clean pattern, without its `!`.
    text: String,
    exception: bool,
    glob: Glob,
}

/// A pattern that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// A lone `!`.
    #[error("illegal exclusion pattern: \"!\"")]
    LoneException,
    /// Not well-formed.
    #[error("{pattern:?}: {source}")]
    Syntax {
        /// The pattern as it was given.
        pattern: String,
        /// What is wrong.
        source: BadPattern,
    },
}

/// Which patterns matched a directory: what is needed to decide on its contents. The default is that of the top.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Matched(Vec<bool>);

impl Patterns {
    /// Compiles a list. White space around a pattern and empty patterns are passed over.
    ///
    /// # Errors
    ///
    /// A lone `!`, or a pattern that is not well-formed.
    pub fn new(list: &[String]) -> Result<Self, PatternError> {
        let mut patterns = Vec::new();
        for (line, given) in list.iter().enumerate() {
            let trimmed = given.trim();
            if trimmed.is_empty() {
                continue;
            }
            let cleaned = clean(trimmed);
            let (exception, text) = match cleaned.strip_prefix('!') {
                Some("") => return Err(PatternError::LoneException),
                Some(rest) => (true, rest),
                None => (false, cleaned.as_str()),
            };
            let glob = Glob::ignore(text.as_bytes()).map_err(|source| PatternError::Syntax {
                pattern: given.clone(),
                source,
            })?;
            patterns.push(Pattern {
                line,
                text: text.to_owned(),
                exception,
                glob,
            });
        }
        Ok(Self { patterns })
    }

    /// Whether there is no pattern at all.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether the path, or a directory that it lies in, matches and no later exception does. The path is relative; the
    /// root itself never matches.
    pub fn matches_or_parent(&self, path: &[u8]) -> bool {
        self.decisive(path)
            .is_some_and(|pattern| !pattern.exception)
    }

    /// The same for a path in a directory whose result is known; a walk uses it, so that each pattern sees each path once.
    pub fn matches_in(&self, path: &[u8], above: &Matched) -> (bool, Matched) {
        let mut verdict = false;
        let mut matched = vec![false; self.patterns.len()];
        for (index, pattern) in self.patterns.iter().enumerate() {
            let inherited = above.0.get(index).copied().unwrap_or(false);
            if inherited
                || (pattern.exception == verdict && !path.is_empty() && pattern.glob.matches(path))
            {
                matched[index] = true;
                verdict = !pattern.exception;
            }
        }
        (verdict, Matched(matched))
    }

    /// Whether some path beneath the directory could still match, be it included or be it an exception. `false` is certain.
    pub fn may_match_beneath(&self, dir: &[u8]) -> bool {
        self.patterns
            .iter()
            .any(|pattern| !pattern.exception && pattern.reaches_beneath(dir))
    }

    /// Whether an exception could apply beneath the directory, which itself matches. `false` is certain.
    pub fn may_except_beneath(&self, dir: &[u8]) -> bool {
        self.patterns
            .iter()
            .any(|pattern| pattern.exception && pattern.reaches_beneath(dir))
    }

    /// Which pattern is the reason that a path is excluded: its index in the list, and its text. `None` if the path is not.
    pub fn why_excluded(&self, path: &[u8]) -> Option<(usize, &str)> {
        let pattern = self.decisive(path).filter(|pattern| !pattern.exception)?;
        Some((pattern.line, &pattern.text))
    }

    /// The pattern that decides on a path.
    fn decisive(&self, path: &[u8]) -> Option<&Pattern> {
        let mut decisive: Option<&Pattern> = None;
        for pattern in &self.patterns {
            let excluded = decisive.is_some_and(|decisive| !decisive.exception);
            if pattern.exception == excluded && pattern.matches_or_parent(path) {
                decisive = Some(pattern);
            }
        }
        decisive
    }
}

/// Which pattern of a `.dockerignore` excludes a path, if one does: its index in the list, and the pattern.
pub fn why_excluded<'p>(path: &[u8], patterns: &'p Patterns) -> Option<(usize, &'p str)> {
    patterns.why_excluded(path)
}

impl Pattern {
    fn matches_or_parent(&self, path: &[u8]) -> bool {
        !path.is_empty()
            && (self.glob.matches(path)
                || crate::tree::ancestors(path).any(|above| self.glob.matches(above)))
    }

    /// Whether it could match something beneath `dir`: component by component as far as both go. `**`, a class (which may
    /// hold a slash) and an escape end the comparison in its favour.
    fn reaches_beneath(&self, dir: &[u8]) -> bool {
        let mut dirs = path::components(dir);
        for part in path::components(self.text.as_bytes()) {
            if part.windows(2).any(|pair| pair == b"**")
                || part.iter().any(|byte| b"[]\\".contains(byte))
            {
                return true;
            }
            let Some(dir) = dirs.next() else { return true };
            if !Glob::single(part).is_ok_and(|glob| glob.matches(dir)) {
                return false;
            }
        }
        true
    }
}

/// Go's `filepath.Clean`.
fn clean(pattern: &str) -> String {
    let absolute = pattern.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in pattern
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
    {
        match (part, parts.last()) {
            ("..", Some(last)) if *last != ".." => {
                parts.pop();
            }
            ("..", None) if absolute => {}
            _ => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (absolute, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(list: &[&str]) -> Patterns {
        let list: Vec<String> = list.iter().map(|text| (*text).to_owned()).collect();
        Patterns::new(&list).expect("well-formed")
    }

    #[test]
    fn patterns_match_as_in_dockerignore() {
        let check = |list: &[&str], path: &str, expected: bool| {
            let patterns = patterns(list);
            assert_eq!(
                patterns.matches_or_parent(path.as_bytes()),
                expected,
                "{list:?} {path}"
            );
            // A walk from the top comes to the same result.
            let mut above = Matched::default();
            for dir in crate::tree::ancestors(path.as_bytes()) {
                above = patterns.matches_in(dir, &above).1;
            }
            assert_eq!(
                patterns.matches_in(path.as_bytes(), &above).0,
                expected,
                "walk: {list:?} {path}"
            );
        };
        check(&["**"], "file", true);
        check(&["**"], "dir/file", true);
        check(&["**/"], "file", true);
        check(&["**/**"], "dir/file", true);
        check(&["dir/**"], "dir/dir2/file", true);
        check(&["dir/**"], "dir", false);
        check(&["**/dir2/*"], "dir/dir2/file", true);
        check(&["**/dir2/*"], "dir/dir2/dir2/file", true);
        check(&["**/dir2/*"], "dir2/file", true);
        check(&["**/dir2/**"], "dir/dir2/dir2/file", true);
        check(&["**/dir2/**"], "dir2", false);
        check(&["**file"], "file", true);
        check(&["**file"], "dir/file", true);
        check(&["**file"], "dir/otherfile", true);
        check(&["**/file"], "dir/otherfile", false);
        check(&["**/file"], "dir/file", true);
        check(&["**/file*"], "dir/dir/file.txt", true);
        check(&["**/file*txt"], "dir/dir/file.txt", true);
        check(&["**/file*.txt*"], "dir/dir/file.txt", true);
        check(&["**/*.txt"], "file.txt", true);
        check(&["**/**/*.txt2"], "dir/dir/file.txt", false);
        check(&["a**/*.txt"], "a/file.txt", true);
        check(&["a**/*.txt"], "a/dir/dir/file.txt", true);
        check(&["a/*.txt"], "a/dir/file.txt", false);
        check(&["a/*.txt**"], "a/file.txt/x", true);
        check(&["a[b-d]e"], "ae", false);
        check(&["a[b-d]e"], "ace", true);
        check(&["a[^b-d]e"], "aze", true);
        check(&[".*"], ".foo", true);
        check(&[".*"], "foo", false);
        check(&["abc.def"], "abcdef", false);
        check(&["abc.def"], "abczdef", false);
        check(&["abc?def"], "abczdef", true);
        check(&["a\\*b"], "a*b", true);
        check(&["**/foo/bar"], "foo/bar", true);
        check(&["**/foo/bar"], "dir/foo/bar", true);
        check(&["foo/**/bar"], "foo/bar", true);
        check(&["foo/**/bar"], "foo/a/b/bar", true);
        check(&["abc/**"], "abc/def", true);
        check(&["docs"], "docs/readme.md", true);
        check(&["docs/"], "docs/readme.md", true);
        check(&["./docs"], "docs", true);
        check(&["/docs"], "docs", false);
        check(&["docs", "!docs/readme.md"], "docs/readme.md", false);
        check(&["docs", "!docs/readme.md"], "docs/other.md", true);
        check(
            &["*.md", "!README*.md", "README-secret.md"],
            "README-secret.md",
            true,
        );
        check(
            &["*.md", "!README*.md", "README-secret.md"],
            "README.md",
            false,
        );
        check(&["docs", "!docs/a", "docs/a/b"], "docs/a/b", true);
        check(&["!docs/readme.md", "docs"], "docs/readme.md", true);
        check(&["**/*.go", "!**/*_test.go"], "a/b_test.go", false);
        check(&["  docs  ", ""], "docs", true);
        check(&["a.b+c"], "a.b+c", true);
        check(&["*"], "", false);
    }

    #[test]
    fn wrong_patterns_are_refused() {
        let check = |pattern: &str, expected: &str| {
            let error = Patterns::new(&[pattern.to_owned()]).expect_err(pattern);
            assert_eq!(error.to_string(), expected);
        };
        check("!", "illegal exclusion pattern: \"!\"");
        check("a[", "\"a[\": syntax error in pattern");
        check("!a\\", "\"!a\\\\\": syntax error in pattern");
    }

    #[test]
    fn the_pattern_that_excluded_a_path_is_named() {
        let patterns = patterns(&["", "docs", "!docs/keep", "**/*.log"]);
        assert_eq!(why_excluded(b"docs/x", &patterns), Some((1, "docs")));
        assert_eq!(why_excluded(b"docs/keep", &patterns), None);
        assert_eq!(
            why_excluded(b"docs/keep/a.log", &patterns),
            Some((3, "**/*.log"))
        );
        assert_eq!(why_excluded(b"src", &patterns), None);
    }

    #[test]
    fn pruning_never_loses_a_match() {
        let list = patterns(&["a/*/c", "b", "x/**/y", "d/[ab]/e"]);
        for dir in [
            "a",
            "a/z",
            "a/z/c",
            "b",
            "b/anything",
            "x",
            "x/1/2/3",
            "d/a",
        ] {
            assert!(list.may_match_beneath(dir.as_bytes()), "{dir}");
        }
        for dir in ["c", "a/z/d", "aa"] {
            assert!(!list.may_match_beneath(dir.as_bytes()), "{dir}");
        }
        assert!(patterns(&["a", "!a/b/c"]).may_except_beneath(b"a"));
        assert!(!patterns(&["a", "!b/c"]).may_except_beneath(b"a"));
    }
}
