//! `followpaths`: the include patterns that stand for some paths and everything their symlinks lead to.
//!
//! The rules are fsutil's (`followlinks.go`): an absolute target begins at the root that is sent, `..` stops there,
//! and a wildcard in a component stands for the symlinks that match it.

use std::collections::BTreeSet;
use std::io;

use buildyard_layer::glob_match;

use super::Root;

/// Chains of links longer than this are followed no further.
const MAX_DEPTH: usize = 255;

/// The include patterns for `paths`; none when everything is wanted.
///
/// # Errors
/// A directory or link cannot be read.
pub(super) fn follow(root: &Root, paths: &[String]) -> io::Result<Option<Vec<String>>> {
    let mut follower = Follower {
        root,
        patterns: BTreeSet::new(),
    };
    for path in paths {
        follower.add(&join("", path), 0)?;
    }
    let all = follower.patterns.contains("");
    Ok((!all).then(|| follower.patterns.into_iter().collect()))
}

struct Follower<'a> {
    root: &'a Root,
    patterns: BTreeSet<String>,
}

impl Follower<'_> {
    fn add(&mut self, path: &str, depth: usize) -> io::Result<()> {
        if path.is_empty() {
            self.patterns.insert(String::new());
            return Ok(());
        }
        let mut current = String::new();
        let mut components = path.split('/').peekable();
        while let Some(component) = components.next() {
            if !current.is_empty() {
                current.push('/');
            }
            current.push_str(component);
            let targets = self.targets(&current)?;
            let last = components.peek().is_none();
            let known = (last || !targets.is_empty()) && !self.patterns.insert(current.clone());
            if known || depth == MAX_DEPTH {
                return Ok(());
            }
            if !targets.is_empty() {
                let rest = components.collect::<Vec<_>>().join("/");
                return targets
                    .iter()
                    .try_for_each(|target| self.add(&join(target, &rest), depth + 1));
            }
        }
        Ok(())
    }

    /// Where the symlinks that a path names lead to, from the root.
    fn targets(&self, path: &str) -> io::Result<Vec<String>> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut targets = Vec::new();
        if !has_wildcards(name) {
            targets.extend(self.target(parent, path)?);
            return Ok(targets);
        }
        for entry in self.root.names(parent.as_bytes())? {
            let Ok(entry) = entry.to_str() else { continue };
            if glob_match(name.as_bytes(), entry.as_bytes()).unwrap_or(false) {
                targets.extend(self.target(parent, &join(parent, entry))?);
            }
        }
        Ok(targets)
    }

    fn target(&self, parent: &str, path: &str) -> io::Result<Option<String>> {
        let Some(target) = self.root.link_target(path.as_bytes())? else {
            return Ok(None);
        };
        let Ok(target) = String::from_utf8(target) else {
            return Ok(None);
        };
        Ok(Some(if target.starts_with('/') {
            join("", &target)
        } else {
            join(parent, &target)
        }))
    }
}

/// Joins and cleans, `..` stopping at the root.
fn join(base: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in base.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn has_wildcards(name: &str) -> bool {
    let mut escaped = false;
    name.chars().any(|c| {
        let wild = !escaped && matches!(c, '*' | '?' | '[');
        escaped = !escaped && c == '\\';
        wild
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn paths_and_what_their_links_lead_to_are_wanted() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        std::fs::create_dir_all(at("real/deep")).unwrap();
        std::fs::write(at("real/file"), "").unwrap();
        symlink("real", at("link")).unwrap();
        symlink("/real/deep", at("absolute")).unwrap();
        symlink("../../../etc/passwd", at("real/out")).unwrap();
        symlink("loop2", at("loop1")).unwrap();
        symlink("loop1", at("loop2")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        let check = |paths: &[&str], expected: Option<&[&str]>| {
            let paths: Vec<String> = paths.iter().map(ToString::to_string).collect();
            let found = follow(&root, &paths).unwrap();
            assert_eq!(
                found
                    .as_deref()
                    .map(|f| f.iter().map(String::as_str).collect::<Vec<_>>()),
                expected.map(<[&str]>::to_vec),
                "{paths:?}"
            );
        };
        check(&["real/file"], Some(&["real/file"]));
        check(&["missing"], Some(&["missing"]));
        check(&["link/file"], Some(&["link", "real/file"]));
        check(&["absolute"], Some(&["absolute", "real/deep"]));
        check(&["real/out"], Some(&["etc/passwd", "real/out"]));
        check(&["link/out"], Some(&["etc/passwd", "link", "real/out"]));
        check(&["loop1"], Some(&["loop1", "loop2"]));
        check(&["l*k"], Some(&["l*k", "real"]));
        check(&["../real/../real/file"], Some(&["real/file"]));
        check(&["."], None);
        check(&["real", "/"], None);
    }
}
