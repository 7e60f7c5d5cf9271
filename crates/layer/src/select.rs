//! The content id of what a step sees of an input.
//!
//! It covers exactly the paths that the step can see, as it sees them, and nothing else of the tree: names, kinds, modes,
//! owners, extended attributes, link targets, device numbers, contents. Not covered: modification times, which paths are
//! hard links of each other, in which layer something lies, the way that symbolic links took to the source. Which part
//! of an input a step selects is part of the operation, and so of the key, not of this id.

use buildyard_model::{Digest, DigestHasher};

use crate::path;
use crate::resolve::Follow;
use crate::source::{CopySource, Filter, Role, SelectError};
use crate::tree::{Node, Tree};
use crate::{Entry, Kind};

/// What a step sees of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// Everything at and beneath a path, symbolic links to it followed: a mount with a selector.
    Beneath(String),
    /// What a copy takes.
    Copy(CopySource),
    /// The contents of `/etc/passwd` and `/etc/group`, links followed: what looking up names sees
    /// ([`names::name_files`](crate::names::name_files)). Either may be missing.
    Names,
}

/// The content id of the selected part of a tree.
///
/// # Errors
///
/// The source does not exist, or a path or pattern cannot be used.
pub fn content_id(tree: &Tree, selection: &Selection) -> Result<Digest, SelectError> {
    match selection {
        Selection::Beneath(selector) => beneath(tree, selector),
        Selection::Copy(source) => copied(tree, source),
        Selection::Names => Ok(names(tree)),
    }
}

fn names(tree: &Tree) -> Digest {
    let mut hasher = DigestHasher::new("content names");
    for path in [&b"etc/passwd"[..], b"etc/group"] {
        let node = tree
            .resolve(path, Follow::All)
            .ok()
            .and_then(|path| tree.get(&path));
        match node.map(|node| &node.entry.kind) {
            Some(Kind::File { content, .. }) => hasher.field(content.as_bytes()),
            _ => hasher.field(""),
        };
    }
    hasher.finish()
}

fn beneath(tree: &Tree, selector: &str) -> Result<Digest, SelectError> {
    let clean = path::clean(selector.as_bytes());
    let top = tree.resolve(&clean, Follow::All)?;
    if tree.get(&top).is_none() {
        return Err(SelectError::NotFound {
            path: path::display(&clean),
        });
    }
    let mut hasher = DigestHasher::new("content beneath");
    for node in tree.walk(&top) {
        hash_node(
            &mut hasher,
            path::relative(node.path, &top),
            Role::Included,
            &node,
        );
    }
    Ok(hasher.finish())
}

fn copied(tree: &Tree, source: &CopySource) -> Result<Digest, SelectError> {
    let matches = source.matches(tree)?;
    let filter: Filter = source.filter()?;
    source.check_required(tree, &matches, &filter)?;
    let mut hasher = DigestHasher::new("content copied");
    for matched in &matches {
        hasher.field("source").field(&matched.name);
        filter.visit(tree, &matched.path, |seen| {
            hash_node(&mut hasher, seen.relative, seen.role, seen.node);
            Ok::<_, SelectError>(())
        })?;
    }
    Ok(hasher.finish())
}

fn hash_node(hasher: &mut DigestHasher, relative: &[u8], role: Role, node: &Node<'_>) {
    hasher
        .field("path")
        .field(relative)
        .number(u64::from(role == Role::Parent));
    hash_entry(hasher, node.entry);
}

/// Adds an entry's kind, metadata and content, without its path and its time.
fn hash_entry(hasher: &mut DigestHasher, entry: &Entry) {
    let Entry {
        path: _,
        kind,
        mode,
        uid,
        gid,
        mtime: _,
        xattrs,
    } = entry;
    hasher
        .number(u64::from(*mode))
        .number(u64::from(*uid))
        .number(u64::from(*gid));
    hasher.number(xattrs.len() as u64);
    for (name, value) in xattrs {
        hasher.field(name).field(value);
    }
    match kind {
        Kind::File {
            size,
            content,
            extents: _,
            ino: _,
        } => hasher.field("file").number(*size).field(content.as_bytes()),
        Kind::Directory { opaque: _ } => hasher.field("directory"),
        Kind::Symlink { target } => hasher.field("symlink").field(target),
        Kind::CharDevice { major, minor } => device(hasher, "char", *major, *minor),
        Kind::BlockDevice { major, minor } => device(hasher, "block", *major, *minor),
        Kind::Fifo => hasher.field("fifo"),
        Kind::Whiteout | Kind::LinkBelow { .. } => unreachable!("a merged tree has neither"),
    };
}

fn device<'h>(
    hasher: &'h mut DigestHasher,
    kind: &str,
    major: u32,
    minor: u32,
) -> &'h mut DigestHasher {
    hasher
        .field(kind)
        .number(u64::from(major))
        .number(u64::from(minor))
}
