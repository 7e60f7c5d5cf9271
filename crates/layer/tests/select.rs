//! The content id of a selection: what changes it and, above all, what does not.

mod support;

use buildyard_layer::{CopySource, Entry, Kind, Selection, Time, Tree, content_id};
use buildyard_model::Digest;
use proptest::prelude::*;
use support::*;

fn source(src: &str) -> CopySource {
    CopySource {
        src: src.to_owned(),
        follow_symlink: true,
        allow_wildcard: true,
        ..CopySource::default()
    }
}

fn id(tree: &Tree, source: CopySource) -> Digest {
    content_id(tree, &Selection::Copy(source)).expect("selectable")
}

fn error(tree: &Tree, source: CopySource) -> String {
    content_id(tree, &Selection::Copy(source))
        .expect_err("not selectable")
        .to_string()
}

#[test]
fn what_a_copy_sees_changes_the_id_and_nothing_else_does() {
    let base = || {
        vec![
            dir("a"),
            file("a/f", "1"),
            symlink("a/l", "f"),
            file("b", "2"),
        ]
    };
    let before = id(&tree(base()), source("/a"));
    let check = |what: &str, replace: Entry, changes: bool| {
        let mut entries = base();
        entries.retain(|entry| entry.path != replace.path);
        entries.push(replace);
        assert_eq!(
            id(&tree(entries), source("/a")) != before,
            changes,
            "{what}"
        );
    };
    check("content", file("a/f", "3"), true);
    check("mode", mode(0o600, file("a/f", "1")), true);
    check("owner", owned(1, 0, file("a/f", "1")), true);
    check("group", owned(0, 1, file("a/f", "1")), true);
    check("link target", symlink("a/l", "g"), true);
    check("kind", dir("a/l"), true);
    check("one more", file("a/g", ""), true);
    check("the directory's mode", mode(0o700, dir("a")), true);
    let xattrs = [(b"user.x".to_vec(), b"1".to_vec())].into();
    check(
        "xattr",
        Entry {
            xattrs,
            ..file("a/f", "1")
        },
        true,
    );
    check("beside it", file("b", "3"), false);
    check("the root's mode", mode(0o700, dir("")), false);
    check(
        "time",
        Entry {
            mtime: Time {
                seconds: 99,
                nanos: 1,
            },
            ..file("a/f", "1")
        },
        false,
    );
    check("hard link number", linked("a/f", "1", 1), false);
}

#[test]
fn links_to_the_source_are_followed_and_covered() {
    let with = |target: &str| {
        tree(vec![
            symlink("cur", target),
            file("v1/f", "1"),
            file("v2/f", "2"),
            file("v3/f", "1"),
        ])
    };
    assert_ne!(
        id(&with("v1"), source("/cur/f")),
        id(&with("v2"), source("/cur/f"))
    );
    assert_eq!(
        id(&with("v1"), source("/cur/f")),
        id(&with("v3"), source("/cur/f"))
    );
    assert_ne!(
        id(&with("v1"), source("/cur")),
        id(&with("v2"), source("/cur"))
    );
    let unfollowed = CopySource {
        follow_symlink: false,
        ..source("/cur")
    };
    assert_ne!(
        id(&with("v1"), unfollowed.clone()),
        id(&with("v3"), unfollowed)
    );
}

#[test]
fn patterns_narrow_what_is_seen() {
    let base = || {
        vec![
            file("src/a.go", "1"),
            file("src/sub/b.go", "2"),
            file("src/c.txt", "3"),
            dir("src/empty"),
        ]
    };
    let go = || CopySource {
        include: vec!["**/*.go".to_owned()],
        ..source("/src")
    };
    let before = id(&tree(base()), go());
    let mut other = base();
    other[2] = file("src/c.txt", "changed");
    other[3] = mode(0o700, dir("src/empty"));
    assert_eq!(id(&tree(other), go()), before);
    let mut other = base();
    other[1] = file("src/sub/b.go", "changed");
    assert_ne!(id(&tree(other), go()), before);
    let mut other = base();
    other.push(mode(0o700, dir("src/sub")));
    assert_ne!(
        id(&tree(other), go()),
        before,
        "a directory that is made for what it contains"
    );
    let without = CopySource {
        exclude: vec!["*.txt".to_owned(), "empty".to_owned()],
        ..source("/src")
    };
    let mut other = base();
    other.retain(|entry| entry.path.ends_with(b".go"));
    assert_eq!(
        id(&tree(base()), without.clone()),
        id(&tree(other), without)
    );
}

#[test]
fn wildcards_select_names() {
    let base = || {
        vec![
            file("a.txt", "1"),
            file("b.txt", "2"),
            file("c.md", "3"),
            file("d/e.txt", "4"),
        ]
    };
    let before = id(&tree(base()), source("/*.txt"));
    let check = |replace: Entry, changes: bool| {
        let mut entries = base();
        entries.retain(|entry| entry.path != replace.path);
        entries.push(replace);
        assert_eq!(id(&tree(entries), source("/*.txt")) != before, changes);
    };
    check(file("a.txt", "9"), true);
    check(file("z.txt", "9"), true);
    check(file("c.md", "9"), false);
    check(file("d/e.txt", "9"), false);
    let names = |pattern: &str| -> Vec<String> {
        let matches = source(pattern).matches(&tree(base())).expect("matches");
        matches
            .iter()
            .map(|found| String::from_utf8_lossy(&found.path).into_owned())
            .collect()
    };
    assert_eq!(names("/*.txt"), ["a.txt", "b.txt"]);
    assert_eq!(names("/*/*.txt"), ["d/e.txt"]);
    assert_eq!(names("/[a-c].*"), ["a.txt", "b.txt", "c.md"]);
    assert_eq!(names("/*"), ["a.txt", "b.txt", "c.md", "d"]);
}

#[test]
fn what_is_not_there_is_named() {
    let tree = tree(vec![file("a", "1"), symlink("dangling", "gone")]);
    assert_eq!(error(&tree, source("/missing")), "\"/missing\": not found");
    assert_eq!(
        error(&tree, source("missing/x/")),
        "\"/missing/x\": not found"
    );
    assert_eq!(error(&tree, source("/a/x")), "\"/a/x\": not found");
    assert_eq!(
        error(&tree, source("/dangling")),
        "\"/dangling\": not found"
    );
    assert_eq!(error(&tree, source("/z*")), "/z* not found");
    assert_eq!(
        error(&tree, source("/[")),
        "\"/[\": syntax error in pattern"
    );
    let required = CopySource {
        required_paths: vec!["/x".to_owned()],
        ..source("/")
    };
    assert_eq!(error(&tree, required), "\"/x\": not found");
    let required = CopySource {
        required_paths: vec!["/a".to_owned()],
        ..source("/")
    };
    id(&tree, required);
    id(
        &tree,
        CopySource {
            allow_empty_wildcard: true,
            ..source("/z*")
        },
    );
    assert!(content_id(&tree, &Selection::Beneath("/missing".to_owned())).is_err());
}

#[test]
fn a_mount_sees_everything_beneath_its_selector() {
    let at = |prefix: &str, content: &str| {
        tree(vec![
            file(&format!("{prefix}/d/f"), content),
            file("other", content),
        ])
    };
    let beneath = |tree: &Tree, path: &str| {
        content_id(tree, &Selection::Beneath(path.to_owned())).expect("there")
    };
    assert_eq!(
        beneath(&at("x", "1"), "/x"),
        beneath(&at("y", "1"), "/y"),
        "the name of the selected path is not seen"
    );
    assert_ne!(beneath(&at("x", "1"), "/x"), beneath(&at("x", "2"), "/x"));
    assert_ne!(beneath(&at("x", "1"), "/"), beneath(&at("y", "1"), "/"));
    assert_eq!(
        beneath(&at("x", "1"), "/x/d/f"),
        beneath(&at("x", "1"), "/x/d/f")
    );
}

#[test]
fn name_lookups_see_the_contents_of_two_files() {
    let id =
        |entries: Vec<Entry>| content_id(&tree(entries), &Selection::Names).expect("never refused");
    let base = id(vec![
        symlink("etc/passwd", "/usr/p"),
        file("usr/p", "1"),
        file("other", "1"),
    ]);
    assert_eq!(
        base,
        id(vec![mode(0o600, file("etc/passwd", "1"))]),
        "only the content counts"
    );
    assert_ne!(
        base,
        id(vec![symlink("etc/passwd", "/usr/p"), file("usr/p", "2")])
    );
    assert_ne!(base, id(vec![file("etc/group", "1")]));
    assert_eq!(
        id(vec![]),
        id(vec![symlink("etc/passwd", "passwd"), dir("etc/group")])
    );
}

/// Stored keys cover these ids: when this test fails, every cache is lost with the change.
#[test]
fn ids_are_frozen() {
    let xattrs = [(b"user.x".to_vec(), b"1".to_vec())].into();
    let tree = tree(vec![
        Entry {
            xattrs,
            ..mode(0o4755, owned(1, 2, file("d/f", "x")))
        },
        symlink("d/l", "f"),
        entry("d/null", Kind::CharDevice { major: 1, minor: 3 }),
        entry("d/disk", Kind::BlockDevice { major: 8, minor: 0 }),
        entry("d/pipe", Kind::Fifo),
        file("d/sub/g", ""),
    ]);
    let check = |selection: Selection, expected: &str| {
        assert_eq!(
            content_id(&tree, &selection).expect("there").hex(),
            expected,
            "{selection:?}"
        );
    };
    check(
        Selection::Beneath("/".to_owned()),
        "7dec17927d0c563397d68309da60268bba11d00149a44227807f13993a043fd2",
    );
    check(
        Selection::Copy(source("/d")),
        "68199e7ec377aaf2a2fea859ab7f2284e787a9e28fb219db211fb7fc5bb5241b",
    );
    let include = vec!["sub/g".to_owned()];
    check(
        Selection::Copy(CopySource {
            include,
            ..source("/d")
        }),
        "35e883e371910e3499a1e560289cc016048e61ee50d510265e8ecbac162df4e0",
    );
}

fn any_source() -> impl Strategy<Value = CopySource> {
    let patterns = || {
        proptest::collection::vec(
            prop_oneof![any_path(), Just("**/a".to_owned()), Just("*/b".to_owned())],
            0..2,
        )
    };
    let src = prop_oneof![
        Just("/".to_owned()),
        any_path(),
        Just("/*".to_owned()),
        Just("/a/*".to_owned())
    ];
    (src, patterns(), patterns(), any::<bool>()).prop_map(
        |(src, include, exclude, follow_symlink)| CopySource {
            include,
            exclude,
            follow_symlink,
            allow_empty_wildcard: true,
            ..source(&src)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Flattening, other times, other extents and other flat files are no change.
    #[test]
    fn how_a_tree_came_to_be_is_not_seen(base in any_base(), source in any_source()) {
        let mut toc = base.to_toc();
        toc.flats = vec![buildyard_model::FlatId::from_bytes([9; 32]); toc.flats.len()];
        for entry in &mut toc.entries {
            entry.mtime = Time { seconds: 77, nanos: 7 };
            if let Kind::File { ino, .. } = &mut entry.kind {
                *ino = 0;
            }
        }
        let other = Tree::merge(&[std::sync::Arc::new(toc)]);
        let selection = Selection::Copy(source);
        prop_assert_eq!(content_id(&base, &selection), content_id(&other, &selection));
    }

    /// A change of one file changes the id if and only if the copy sees the file.
    #[test]
    fn exactly_the_selected_files_are_covered(base in any_base(), source in any_source(), pick in any::<prop::sample::Index>()) {
        let files: Vec<Vec<u8>> = base.files_beneath(b"").map(|node| node.path.to_vec()).collect();
        prop_assume!(!files.is_empty());
        let path = String::from_utf8_lossy(pick.get(files.as_slice()).as_slice()).into_owned();
        let node = base.get(path.as_bytes()).expect("it was listed");
        let Kind::File { size, .. } = node.entry.kind else { unreachable!() };
        let content = Digest::of("something else entirely");
        let kind = Kind::File { size, content, extents: vec![], ino: 0 };
        let changed = base.with(layer(8, vec![Entry { path: path.clone().into_bytes(), kind, ..node.entry.clone() }]));
        let without = base.with(layer(8, vec![whiteout(&path)]));
        let selection = Selection::Copy(source);
        let before = content_id(&base, &selection);
        let seen = content_id(&changed, &selection) != before;
        let needed = content_id(&without, &selection) != before;
        prop_assert_eq!(seen, needed);
    }
}
