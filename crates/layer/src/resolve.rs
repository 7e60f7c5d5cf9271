//! Following symbolic links inside a root, as `chroot` would: `..` and absolute targets never leave it.
//!
//! It works on anything that can look up a path. What does not exist is taken as it is named, so that a path that is about
//! to be made resolves too.

use std::collections::VecDeque;

use crate::path;

/// How many symbolic links one path may lead through (containerd's `fs.RootPath` and BuildKit's content hash have the same).
const MAX_LINKS: usize = 255;

/// Whether a symbolic link in the last component is followed too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// Every link, the last component's too.
    All,
    /// Only links on the way to the last component.
    Parents,
}

/// A path that cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// More than 255 links, most likely a cycle.
    #[error("{path}: too many links")]
    TooManyLinks {
        /// The path asked for.
        path: String,
    },
    /// A component that is not the last one is a file.
    #[error("{path}: not a directory")]
    NotADirectory {
        /// The path of the component.
        path: String,
    },
}

/// What a path is, as far as following links goes.
pub(crate) enum Step {
    Missing,
    Directory,
    Link(Vec<u8>),
    Other,
}

/// The clean path that `path` leads to.
pub(crate) fn resolve(
    path: &[u8],
    follow: Follow,
    look: impl Fn(&[u8]) -> Step,
) -> Result<Vec<u8>, ResolveError> {
    let mut rest: VecDeque<Vec<u8>> = path::components(path).map(<[u8]>::to_vec).collect();
    let mut current = Vec::new();
    let mut links = 0;
    while let Some(part) = rest.pop_front() {
        if part == b".." {
            current = path::parent(&current).unwrap_or_default().to_vec();
            continue;
        }
        let next = path::join(&current, &part);
        match look(&next) {
            Step::Link(target) if follow == Follow::All || !rest.is_empty() => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(ResolveError::TooManyLinks {
                        path: path::display(&path::clean(path)),
                    });
                }
                if target.starts_with(b"/") {
                    current.clear();
                }
                for part in path::components(&target)
                    .collect::<Vec<_>>()
                    .into_iter()
                    .rev()
                {
                    rest.push_front(part.to_vec());
                }
            }
            Step::Other if !rest.is_empty() => {
                return Err(ResolveError::NotADirectory {
                    path: path::display(&next),
                });
            }
            _ => current = next,
        }
    }
    Ok(current)
}
