//! What a copy takes from its source: matches of the source path, filtered by include and exclude patterns.
//!
//! The copy itself ([`Draft::copy`](crate::Draft)) and the content id of what it sees ([`content_id`](crate::content_id)) both
//! go through here, so that what is hashed is what is copied.

use crate::glob::{Glob, has_wildcards};
use crate::path;
use crate::pattern::{Matched, PatternError, Patterns};
use crate::resolve::{Follow, ResolveError};
use crate::tree::{Node, Tree};

/// The source side of BuildKit's `FileActionCopy`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CopySource {
    /// The path in the source tree; a wildcard pattern if `allow_wildcard`.
    pub src: String,
    /// Whether `src` is followed when it is itself a symbolic link. Links on the way to it always are.
    pub follow_symlink: bool,
    /// Whether `src` may have wildcards.
    pub allow_wildcard: bool,
    /// Whether a wildcard may match nothing.
    pub allow_empty_wildcard: bool,
    /// If there are any, only what matches them (or lies in a directory that does) is copied.
    pub include: Vec<String>,
    /// What matches them is left out.
    pub exclude: Vec<String>,
    /// Patterns, relative to the source; each must match something that is copied.
    pub required_paths: Vec<String>,
}

/// One path that a source path or wildcard stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceMatch {
    /// The last component as it was named or matched (not that of a link's target); empty for the root. A copy into a
    /// directory makes this name.
    pub name: Vec<u8>,
    /// Where it is: clean, symbolic links followed. It exists.
    pub path: Vec<u8>,
}

/// Why a source cannot be selected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// The source path does not exist. BuildKit words it `"/path": not found` behind
    /// `failed to calculate checksum of ref …:`.
    #[error("{path:?}: not found")]
    NotFound {
        /// The absolute path that was asked for.
        path: String,
    },
    /// A wildcard matches nothing.
    #[error("{pattern} not found")]
    NoMatch {
        /// The absolute pattern.
        pattern: String,
    },
    /// A path leads through too many links or through a file.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The source path is not a well-formed wildcard.
    #[error("{pattern:?}: syntax error in pattern")]
    Wildcard {
        /// The pattern.
        pattern: String,
    },
    /// An include, exclude or required pattern is wrong.
    #[error("invalid {list} patterns")]
    Pattern {
        /// `include`, `exclude` or `required`.
        list: &'static str,
        /// What is wrong.
        source: PatternError,
    },
}

impl CopySource {
    /// The paths that the source stands for, in order. Empty only where a wildcard may match nothing.
    ///
    /// # Errors
    ///
    /// The path does not exist, or the wildcard matches nothing or is not well-formed.
    pub fn matches(&self, tree: &Tree) -> Result<Vec<SourceMatch>, SelectError> {
        let clean = path::clean(self.src.as_bytes());
        if self.allow_wildcard && has_wildcards(&clean) {
            return self.wildcard(tree, &clean);
        }
        let not_found = || SelectError::NotFound {
            path: path::display(&clean),
        };
        let path = tree
            .resolve(&clean, self.follow())
            .map_err(|error| match error {
                ResolveError::NotADirectory { .. } => not_found(),
                other => other.into(),
            })?;
        tree.get(&path).ok_or_else(not_found)?;
        Ok(vec![SourceMatch {
            name: path::file_name(&clean).to_vec(),
            path,
        }])
    }

    fn follow(&self) -> Follow {
        if self.follow_symlink {
            Follow::All
        } else {
            Follow::Parents
        }
    }

    /// The part before the first component with a wildcard is followed, the rest matched against what lies beneath it.
    fn wildcard(&self, tree: &Tree, clean: &[u8]) -> Result<Vec<SourceMatch>, SelectError> {
        let parts: Vec<&[u8]> = path::components(clean).collect();
        let plain = parts.iter().take_while(|part| !has_wildcards(part)).count();
        let pattern = parts[plain..].join(&b'/');
        let wrong = |_| SelectError::Wildcard {
            pattern: path::display(clean),
        };
        let glob = Glob::single(&pattern).map_err(wrong)?;
        let no_match = || SelectError::NoMatch {
            pattern: path::display(clean),
        };
        let base = match tree.resolve(&parts[..plain].join(&b'/'), self.follow()) {
            Err(ResolveError::NotADirectory { .. }) if self.allow_empty_wildcard => {
                return Ok(Vec::new());
            }
            Err(ResolveError::NotADirectory { .. }) => return Err(no_match()),
            other => other?,
        };
        // A class may match a slash; without one, deeper paths than the pattern's cannot match.
        let deepest = if pattern.contains(&b'[') {
            usize::MAX
        } else {
            parts.len() - plain
        };
        let matches = wildcard_beneath(tree, &base, &glob, deepest);
        if matches.is_empty() && !self.allow_empty_wildcard {
            return Err(no_match());
        }
        Ok(matches)
    }

    pub(crate) fn filter(&self) -> Result<Filter, SelectError> {
        let compile = |list: &'static str, patterns: &[String]| {
            Patterns::new(patterns).map_err(|source| SelectError::Pattern { list, source })
        };
        Ok(Filter {
            include: compile("include", &self.include)?,
            exclude: compile("exclude", &self.exclude)?,
        })
    }

    /// Whether each required path matches one of the paths that the filter lets through.
    pub(crate) fn check_required(
        &self,
        tree: &Tree,
        matches: &[SourceMatch],
        filter: &Filter,
    ) -> Result<(), SelectError> {
        for required in &self.required_paths {
            let relative = required.trim_start_matches('/').to_owned();
            let pattern = Patterns::new(&[relative]).map_err(|source| SelectError::Pattern {
                list: "required",
                source,
            })?;
            let mut found = false;
            for matched in matches {
                filter.visit(tree, &matched.path, |seen| {
                    found |=
                        seen.role == Role::Included && pattern.matches_or_parent(seen.relative);
                    Ok::<_, SelectError>(())
                })?;
            }
            if !found {
                let path = path::display(&path::clean(required.as_bytes()));
                return Err(SelectError::NotFound { path });
            }
        }
        Ok(())
    }
}

/// What beneath `base`, at most so many components deep, matches as a whole; what lies in a matched directory is not matched
/// again.
fn wildcard_beneath(tree: &Tree, base: &[u8], glob: &Glob, deepest: usize) -> Vec<SourceMatch> {
    let mut matches = Vec::new();
    let mut walk = tree.walk(base);
    while let Some(node) = walk.next() {
        let relative = path::relative(node.path, base);
        if relative.is_empty() {
            continue;
        }
        let matched = glob.matches(relative);
        if matched {
            let name = path::file_name(node.path).to_vec();
            matches.push(SourceMatch {
                name,
                path: node.path.to_vec(),
            });
        }
        if matched || path::components(relative).count() >= deepest {
            walk.skip_beneath(&node);
        }
    }
    matches
}

/// Compiled include and exclude patterns. They see paths relative to the directory that is copied.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    include: Patterns,
    exclude: Patterns,
}

/// Why a path is visited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// It is the source itself.
    Top,
    /// The patterns let it through.
    Included,
    /// A directory that they don't let through, but something in it.
    Parent,
}

/// One path that a copy sees.
pub(crate) struct Seen<'a, 't> {
    pub(crate) node: &'a Node<'t>,
    pub(crate) relative: &'a [u8],
    pub(crate) role: Role,
}

/// A directory on the way to the current path.
struct Above<'t> {
    node: Node<'t>,
    include: Matched,
    exclude: Matched,
    seen: bool,
}

impl Filter {
    /// Visits `top` and what lies beneath it, as far as the patterns let it through, each directory before its contents.
    pub(crate) fn visit<'t, E>(
        &self,
        tree: &'t Tree,
        top: &[u8],
        mut see: impl FnMut(Seen<'_, 't>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut above: Vec<Above<'t>> = Vec::new();
        let mut walk = tree.walk(top);
        while let Some(node) = walk.next() {
            let relative = path::relative(node.path, top);
            if relative.is_empty() {
                see(Seen {
                    node: &node,
                    relative,
                    role: Role::Top,
                })?;
                above.push(Above {
                    node,
                    include: Matched::default(),
                    exclude: Matched::default(),
                    seen: true,
                });
                continue;
            }
            while above
                .last()
                .is_some_and(|dir| !path::is_within(node.path, dir.node.path))
            {
                above.pop();
            }
            let Some(dir) = above.last() else { continue };
            let (include, exclude) = self.decide(relative, dir);
            let included = include.0 && !exclude.0;
            if included {
                for dir in above.iter_mut().filter(|dir| !dir.seen) {
                    dir.seen = true;
                    let relative = path::relative(dir.node.path, top);
                    see(Seen {
                        node: &dir.node,
                        relative,
                        role: Role::Parent,
                    })?;
                }
                see(Seen {
                    node: &node,
                    relative,
                    role: Role::Included,
                })?;
            }
            if !node.is_directory() {
                continue;
            }
            if !included && self.prunes(relative, include.0, exclude.0) {
                walk.skip_beneath(&node);
            } else {
                above.push(Above {
                    node,
                    include: include.1,
                    exclude: exclude.1,
                    seen: included,
                });
            }
        }
        Ok(())
    }

    fn decide(&self, relative: &[u8], dir: &Above<'_>) -> ((bool, Matched), (bool, Matched)) {
        let include = if self.include.is_empty() {
            (true, Matched::default())
        } else {
            self.include.matches_in(relative, &dir.include)
        };
        (include, self.exclude.matches_in(relative, &dir.exclude))
    }

    fn prunes(&self, dir: &[u8], included: bool, excluded: bool) -> bool {
        (excluded && !self.exclude.may_except_beneath(dir))
            || (!included && !self.include.may_match_beneath(dir))
    }
}
