//! What a walk selects and in which order. The protocol around it is tested with the session.

use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

fn tree() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| dir.path().join(path);
    for path in ["a", "a/deep", "b", "node_modules/x"] {
        std::fs::create_dir_all(at(path)).unwrap();
    }
    for path in [
        "Dockerfile",
        "a.txt",
        "a/one",
        "a/deep/two",
        "b/three",
        "node_modules/x/y",
    ] {
        std::fs::write(at(path), path).unwrap();
    }
    std::fs::hard_link(at("a/one"), at("b/linked")).unwrap();
    symlink("../a/one", at("b/pointer")).unwrap();
    std::fs::set_permissions(at("a/one"), std::fs::Permissions::from_mode(0o4755)).unwrap();
    std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    dir
}

fn list(dir: &std::path::Path, include: &[&str], exclude: &[&str], follow: &[&str]) -> Vec<String> {
    let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    let root = Root::open(dir).unwrap();
    let selection =
        Selection::new(&root, &owned(include), &owned(exclude), &owned(follow)).unwrap();
    let mut paths = Vec::new();
    walk(&root, &selection, &mut |stat| {
        paths.push(String::from_utf8(stat.path).unwrap());
        Ok(())
    })
    .unwrap();
    paths
}

#[test]
fn the_selected_paths_come_in_order_with_the_directories_above_them() {
    let dir = tree();
    let check = |include: &[&str], exclude: &[&str], follow: &[&str], expected: &[&str]| {
        assert_eq!(
            list(dir.path(), include, exclude, follow),
            expected,
            "{include:?} {exclude:?} {follow:?}"
        );
    };
    let everything = [
        "Dockerfile",
        "a",
        "a/deep",
        "a/deep/two",
        "a/one",
        "a.txt",
        "b",
        "b/linked",
        "b/pointer",
        "b/three",
        "node_modules",
        "node_modules/x",
        "node_modules/x/y",
    ];
    check(&[], &[], &[], &everything);
    check(&[], &["node_modules", "b"], &[], &everything[..6]);
    check(&[], &["*", "!a/deep"], &[], &["a", "a/deep", "a/deep/two"]);
    check(&["b/three"], &[], &[], &["b", "b/three"]);
    check(&["**/one"], &[], &[], &["a", "a/one"]);
    check(
        &["a", "b"],
        &["**/t*"],
        &[],
        &["a", "a/deep", "a/one", "b", "b/linked", "b/pointer"],
    );
    check(
        &[],
        &[],
        &["Dockerfile", "Dockerfile.dockerignore", ".dockerignore"],
        &["Dockerfile"],
    );
    check(&[], &[], &["b/pointer"], &["a", "a/one", "b", "b/pointer"]);
    check(
        &[],
        &["a"],
        &["/"],
        &everything
            .iter()
            .copied()
            .filter(|p| *p != "a" && !p.starts_with("a/"))
            .collect::<Vec<_>>(),
    );
}

#[test]
fn stats_say_what_a_path_is() {
    let dir = tree();
    let root = Root::open(dir.path()).unwrap();
    let mut stats = BTreeMap::new();
    walk(&root, &Selection::default(), &mut |stat| {
        stats.insert(String::from_utf8(stat.path.clone()).unwrap(), stat);
        Ok(())
    })
    .unwrap();
    assert_eq!(stats["a"].mode & GO_DIR, GO_DIR);
    assert_eq!(stats["a/one"].mode, 0o755 | 1 << 23);
    assert_eq!(
        (stats["a/one"].size, stats["a/one"].uid, stats["a/one"].gid),
        (5, 0, 0)
    );
    assert_eq!(
        (&stats["b/linked"].linkname[..], stats["b/linked"].size),
        (&b"a/one"[..], 0)
    );
    assert_eq!(
        (
            stats["b/pointer"].mode & GO_SYMLINK,
            &stats["b/pointer"].linkname[..]
        ),
        (GO_SYMLINK, &b"../a/one"[..])
    );
    assert!(stats["a/one"].mod_time > 1_500_000_000_000_000_000);
}

#[test]
fn nothing_is_opened_through_a_symlink() {
    let dir = tree();
    symlink("/etc", dir.path().join("etc")).unwrap();
    let root = Root::open(dir.path()).unwrap();
    assert!(root.file(b"a/one").is_ok());
    for path in [
        "etc/passwd",
        "b/pointer",
        "../x",
        "a/../../etc/passwd",
        "",
        "a",
    ] {
        assert!(root.file(path.as_bytes()).is_err(), "{path}");
    }
}

#[test]
fn names_need_not_be_utf8() {
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir().unwrap();
    let odd = std::ffi::OsStr::from_bytes(b"odd\xff");
    std::fs::write(dir.path().join(odd), "content").unwrap();
    symlink(odd, dir.path().join("link")).unwrap();
    let root = Root::open(dir.path()).unwrap();
    let mut stats = Vec::new();
    walk(&root, &Selection::default(), &mut |stat| {
        stats.push((stat.path, stat.linkname));
        Ok(())
    })
    .unwrap();
    assert_eq!(
        stats,
        [
            (b"link".to_vec(), b"odd\xff".to_vec()),
            (b"odd\xff".to_vec(), Vec::new())
        ]
    );
    assert!(root.file(b"odd\xff").is_ok());
}
