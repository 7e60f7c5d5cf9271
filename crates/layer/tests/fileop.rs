//! File steps, case by case: what BuildKit does on a mounted file system.

mod support;

use std::sync::Arc;

use buildyard_layer::fileop::{
    Content, CopyAction, FileStep, MkdirAction, MkfileAction, ModeChange, Owner, RmAction,
    SymlinkAction, UnpackAction, apply,
};
use buildyard_layer::names::name_files;
use buildyard_layer::{CopySource, Draft, Entry, Kind, Time, Toc, Tree};
use buildyard_model::{Digest, FlatId};
use support::*;

const NOW: Time = Time {
    seconds: 1000,
    nanos: 0,
};

fn run(base: &Tree, steps: &[FileStep<'_>]) -> Result<Toc, String> {
    apply(base, steps, NOW, &mut |_| Ok(b"read".to_vec())).map_err(|(_, error)| error.to_string())
}

/// The lines of the tree after the steps, without the root.
fn after(base: &Tree, steps: &[FileStep<'_>]) -> Vec<String> {
    let toc = run(base, steps).expect("the steps succeed");
    show(&base.with(Arc::new(toc)))
}

fn layer_paths(base: &Tree, steps: &[FileStep<'_>]) -> Vec<String> {
    let toc = run(base, steps).expect("the steps succeed");
    toc.entries
        .iter()
        .map(|entry| {
            let opaque = matches!(entry.kind, Kind::Directory { opaque: true });
            let mark = if opaque { " opaque" } else { "" };
            format!(
                "{} {}{mark}",
                String::from_utf8_lossy(&entry.path),
                kind_text(&entry.kind)
            )
        })
        .collect()
}

/// As the Dockerfile frontend asks for COPY.
fn copy(src: &str, dest: &str) -> CopyAction {
    let source = CopySource {
        src: src.to_owned(),
        follow_symlink: true,
        allow_wildcard: true,
        ..CopySource::default()
    };
    CopyAction {
        source,
        dest: dest.to_owned(),
        dir_copy_contents: true,
        create_dest_path: true,
        ..CopyAction::default()
    }
}

fn mkdir(path: &str) -> MkdirAction {
    MkdirAction {
        path: path.to_owned(),
        mode: 0o755,
        make_parents: true,
        ..MkdirAction::default()
    }
}

fn rm(path: &str) -> RmAction {
    RmAction {
        path: path.to_owned(),
        ..RmAction::default()
    }
}

fn mkfile(path: &str) -> MkfileAction {
    let extents = vec![buildyard_layer::Extent {
        flat: 0,
        offset: 0,
        length: 1,
        at: 0,
    }];
    let content = Content {
        size: 1,
        digest: Digest::of("x"),
        extents,
        flats: vec![FlatId::from_bytes([5; 32])],
    };
    MkfileAction {
        path: path.to_owned(),
        mode: 0o644,
        content,
        small: None,
        owner: None,
        timestamp: None,
    }
}

fn source() -> Tree {
    tree(vec![
        file("f", "x"),
        mode(0o750, dir("d")),
        mode(0o600, owned(3, 4, file("d/in", "x"))),
        mode(0o700, dir("d/sub")),
        file("d/sub/deep", "x"),
        symlink("d/link", "in"),
        symlink("to-d", "d"),
    ])
}

const X: &str = "file 2d7116";

fn lines(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| text.replace("FILE", X)).collect()
}

#[test]
fn files_go_to_a_name_or_into_a_directory() {
    let source = source();
    let check = |base: Vec<Entry>, dest: &str, expected: &[&str]| {
        assert_eq!(
            after(&tree(base), &[FileStep::Copy(&source, copy("/f", dest))]),
            lines(expected),
            "{dest}"
        );
    };
    check(vec![], "/g", &["g FILE 644 0:0"]);
    check(vec![], "/g/", &["g dir 755 0:0", "g/f FILE 644 0:0"]);
    check(vec![], "/", &["f FILE 644 0:0"]);
    check(
        vec![],
        "/a/b/g",
        &["a dir 755 0:0", "a/b dir 755 0:0", "a/b/g FILE 644 0:0"],
    );
    check(
        vec![mode(0o700, dir("g"))],
        "/g",
        &["g dir 700 0:0", "g/f FILE 644 0:0"],
    );
    check(
        vec![mode(0o600, file("g", "old"))],
        "/g",
        &["g FILE 644 0:0"],
    );
    check(
        vec![symlink("l", "/real"), dir("real")],
        "/l/",
        &[
            "l -> /real 777 0:0",
            "real dir 755 0:0",
            "real/f FILE 644 0:0",
        ],
    );
    check(
        vec![symlink("l", "real/x"), dir("real")],
        "/l",
        &[
            "l -> real/x 777 0:0",
            "real dir 755 0:0",
            "real/x FILE 644 0:0",
        ],
    );
    check(
        vec![dir("g"), symlink("g/f", "zz")],
        "/g",
        &["g dir 755 0:0", "g/f FILE 644 0:0"],
    );
}

#[test]
fn directories_are_copied_with_their_contents() {
    let source = source();
    let check = |base: Vec<Entry>, action: CopyAction, expected: &[&str]| {
        assert_eq!(
            after(&tree(base), &[FileStep::Copy(&source, action)]),
            lines(expected)
        );
    };
    let contents = [
        "n/in FILE 600 3:4",
        "n/link -> in 777 0:0",
        "n/sub dir 700 0:0",
        "n/sub/deep FILE 644 0:0",
    ];
    let with =
        |first: &'static str| -> Vec<&str> { std::iter::once(first).chain(contents).collect() };
    // The directory that is made for the contents is not the source's.
    check(vec![], copy("/d", "/n"), &with("n dir 755 0:0"));
    check(vec![], copy("/d/", "/n/"), &with("n dir 755 0:0"));
    check(vec![], copy("/to-d", "/n"), &with("n dir 755 0:0"));
    // One that was there keeps its metadata, those within get the source's.
    check(
        vec![mode(0o711, dir("n")), mode(0o777, dir("n/sub"))],
        copy("/d", "/n"),
        &with("n dir 711 0:0"),
    );
    let whole = CopyAction {
        dir_copy_contents: false,
        ..copy("/d", "/n")
    };
    check(vec![], whole.clone(), &with("n dir 750 0:0"));
    let into = [
        "n dir 755 0:0",
        "n/d dir 750 0:0",
        "n/d/in FILE 600 3:4",
        "n/d/link -> in 777 0:0",
    ];
    check(
        vec![dir("n")],
        whole,
        &[
            &into[..],
            &["n/d/sub dir 700 0:0", "n/d/sub/deep FILE 644 0:0"],
        ]
        .concat(),
    );
    let unfollowed = CopySource {
        follow_symlink: false,
        ..copy("/to-d", "").source
    };
    check(
        vec![],
        CopyAction {
            source: unfollowed,
            ..copy("", "/n")
        },
        &["n -> d 777 0:0"],
    );
}

#[test]
fn owners_and_modes_are_those_that_were_asked_for() {
    let source = source();
    let check = |mode: &str, expected: &[&str]| {
        let action = CopyAction {
            chown: Some(Owner { uid: 7, gid: 8 }),
            mode: Some(ModeChange::parse(mode).expect("a mode")),
            ..copy("/d", "/p/n")
        };
        let found = after(&Tree::empty(), &[FileStep::Copy(&source, action)]);
        assert_eq!(found, lines(expected), "{mode}");
    };
    check(
        "u=rwX,go=",
        &[
            "p dir 755 7:8",
            "p/n dir 755 7:8",
            "p/n/in FILE 600 7:8",
            "p/n/link -> in 777 7:8",
            "p/n/sub dir 700 7:8",
            "p/n/sub/deep FILE 600 7:8",
        ],
    );
    check(
        "1777",
        &[
            "p dir 755 7:8",
            "p/n dir 755 7:8",
            "p/n/in FILE 1777 7:8",
            "p/n/link -> in 777 7:8",
            "p/n/sub dir 1777 7:8",
            "p/n/sub/deep FILE 1777 7:8",
        ],
    );
    check(
        "700",
        &[
            "p dir 700 7:8",
            "p/n dir 700 7:8",
            "p/n/in FILE 700 7:8",
            "p/n/link -> in 777 7:8",
            "p/n/sub dir 700 7:8",
            "p/n/sub/deep FILE 700 7:8",
        ],
    );
}

#[test]
fn times_are_the_sources_unless_one_is_given() {
    let source = source();
    let times = |action: CopyAction| -> Vec<i64> {
        let toc = run(&Tree::empty(), &[FileStep::Copy(&source, action)]).expect("copied");
        toc.entries
            .iter()
            .map(|entry| entry.mtime.seconds)
            .collect()
    };
    assert_eq!(
        times(copy("/f", "/a/g")),
        [1000, 1],
        "the parent is new, the file is the source's"
    );
    let given = CopyAction {
        timestamp: Some(Time {
            seconds: 5,
            nanos: 0,
        }),
        ..copy("/f", "/a/g")
    };
    assert_eq!(times(given), [5, 5]);
    let there = tree(vec![dir("n")]);
    let toc = run(&there, &[FileStep::Copy(&source, copy("/d", "/n"))]).expect("copied");
    let of = |path: &[u8]| {
        let entry = toc.entries.iter().find(|entry| entry.path == path);
        entry.map(|entry| entry.mtime.seconds)
    };
    let expected = source.get(b"d").map(|node| node.entry.mtime.seconds);
    assert_eq!(
        of(b"n"),
        expected,
        "a directory that was there gets the source's"
    );
}

#[test]
fn things_in_the_way_are_named() {
    let source = source();
    let check = |base: Vec<Entry>, action: CopyAction, expected: &str| {
        assert_eq!(
            run(&tree(base), &[FileStep::Copy(&source, action)]).expect_err("refused"),
            expected
        );
    };
    check(
        vec![file("g", "x")],
        copy("/d", "/g"),
        "cannot copy to non-directory: /g",
    );
    check(
        vec![file("g", "x")],
        copy("/f", "/g/"),
        "mkdir /g: not a directory",
    );
    check(
        vec![file("g", "x")],
        copy("/f", "/g/h/i"),
        "/g: not a directory",
    );
    check(
        vec![dir("n/in")],
        copy("/d", "/n"),
        "cannot replace to directory /n/in with file",
    );
    check(
        vec![symlink("n/sub", "/")],
        copy("/d", "/n"),
        "cannot copy to non-directory: /n/sub",
    );
    check(vec![], copy("/missing", "/n"), "\"/missing\": not found");
    check(vec![], copy("/m*", "/n"), "/m* not found");
    check(
        vec![symlink("l", "l")],
        copy("/f", "/l/x"),
        "/l: too many links",
    );
    let strict = CopyAction {
        create_dest_path: false,
        ..copy("/f", "/no/n")
    };
    check(
        vec![],
        strict,
        "failed to stat /no/n: no such file or directory",
    );
    let replace = CopyAction {
        always_replace: true,
        ..copy("/d", "/n")
    };
    let base = tree(vec![dir("n/in/x"), symlink("n/sub", "/")]);
    let merged = after(&base, &[FileStep::Copy(&source, replace)]);
    assert!(
        merged.contains(&format!("n/in {X} 600 3:4"))
            && merged.contains(&"n/sub dir 700 0:0".to_owned()),
        "{merged:?}"
    );
}

#[test]
fn patterns_make_only_the_directories_they_need() {
    let source = source();
    let with = |include: &[&str], exclude: &[&str]| {
        let list = |patterns: &[&str]| patterns.iter().map(|text| (*text).to_owned()).collect();
        let base = copy("/d", "/n");
        CopyAction {
            source: CopySource {
                include: list(include),
                exclude: list(exclude),
                ..base.source
            },
            ..base
        }
    };
    let check = |action: CopyAction, expected: &[&str]| {
        assert_eq!(
            after(&Tree::empty(), &[FileStep::Copy(&source, action)]),
            lines(expected)
        );
    };
    check(
        with(&["**/deep"], &[]),
        &[
            "n dir 755 0:0",
            "n/sub dir 700 0:0",
            "n/sub/deep FILE 644 0:0",
        ],
    );
    check(
        with(&[], &["sub", "link"]),
        &["n dir 755 0:0", "n/in FILE 600 3:4"],
    );
    check(
        with(&[], &["*", "!sub/deep"]),
        &[
            "n dir 755 0:0",
            "n/sub dir 700 0:0",
            "n/sub/deep FILE 644 0:0",
        ],
    );
    check(with(&["nothing"], &[]), &["n dir 755 0:0"]);
}

#[test]
fn hard_links_stay_links_and_their_numbers_are_canonical() {
    let source = tree(vec![
        linked("a", "x", 9),
        file("b", "y"),
        linked("c", "x", 9),
        linked("d", "z", 4),
        linked("e", "z", 4),
    ]);
    let toc = run(&Tree::empty(), &[FileStep::Copy(&source, copy("/", "/"))]).expect("copied");
    let inos: Vec<u32> = toc
        .entries
        .iter()
        .map(|entry| match entry.kind {
            Kind::File { ino, .. } => ino,
            _ => u32::MAX,
        })
        .collect();
    assert_eq!(inos, [1, 0, 1, 2, 2]);
    // Each match of a wildcard is a copy of its own.
    let toc = run(&Tree::empty(), &[FileStep::Copy(&source, copy("/*", "/"))]).expect("copied");
    assert!(
        toc.entries
            .iter()
            .all(|entry| matches!(entry.kind, Kind::File { ino: 0, .. }))
    );
}

#[test]
fn extents_point_into_one_table_of_flat_files() {
    let one = Tree::merge(&[
        layer(1, vec![file("a", "x")]),
        layer(2, vec![file("b", "y")]),
    ]);
    let other = Tree::merge(&[layer(2, vec![file("c", "z"), file("empty", "")])]);
    let toc = run(
        &Tree::empty(),
        &[
            FileStep::Copy(&one, copy("/", "/")),
            FileStep::Copy(&other, copy("/", "/")),
        ],
    )
    .expect("copied");
    assert_eq!(
        toc.flats,
        [FlatId::from_bytes([1; 32]), FlatId::from_bytes([2; 32])]
    );
    let flats: Vec<u32> = toc
        .entries
        .iter()
        .filter_map(|entry| match &entry.kind {
            Kind::File { extents, .. } => extents.first().map(|extent| extent.flat),
            _ => None,
        })
        .collect();
    assert_eq!(flats, [0, 1, 1], "a b c");
}

#[test]
fn a_layer_lists_the_parents_of_what_it_changes() {
    let base = tree(vec![
        mode(0o1777, dir("tmp")),
        file("tmp/old", "x"),
        file("other/f", "x"),
    ]);
    assert_eq!(
        layer_paths(&base, &[FileStep::Mkfile(mkfile("/tmp/new"))]),
        ["tmp dir", &format!("tmp/new {X}")]
    );
    assert_eq!(
        layer_paths(&base, &[FileStep::Rm(rm("/tmp/old"))]),
        ["tmp dir", "tmp/old whiteout"]
    );
    let toc = run(&base, &[FileStep::Mkfile(mkfile("/tmp/new"))]).expect("made");
    assert_eq!(toc.entries[0].mode, 0o1777);
}

#[test]
fn removing_and_making_anew_hides_the_base() {
    let base = || tree(vec![file("d/a", "x"), file("d/b", "x"), file("f", "x")]);
    let check = |steps: &[FileStep<'_>], layer: &[&str], merged: &[&str]| {
        assert_eq!(layer_paths(&base(), steps), lines(layer));
        assert_eq!(after(&base(), steps), lines(merged));
    };
    let f = "f FILE 644 0:0";
    check(&[FileStep::Rm(rm("/d"))], &["d whiteout"], &[f]);
    check(
        &[
            FileStep::Rm(rm("/d")),
            FileStep::Mkfile(MkfileAction {
                path: "/d".to_owned(),
                ..mkfile("")
            }),
        ],
        &["d FILE"],
        &["d FILE 644 0:0", f],
    );
    check(
        &[FileStep::Rm(rm("/d")), FileStep::Mkdir(mkdir("/d"))],
        &["d dir opaque"],
        &["d dir 755 0:0", f],
    );
    check(
        &[FileStep::Rm(rm("/f")), FileStep::Mkdir(mkdir("/f/g"))],
        &["f dir", "f/g dir"],
        &[
            "d dir 755 0:0",
            "d/a FILE 644 0:0",
            "d/b FILE 644 0:0",
            "f dir 755 0:0",
            "f/g dir 755 0:0",
        ],
    );
    check(
        &[FileStep::Mkfile(mkfile("/n")), FileStep::Rm(rm("/n"))],
        &[],
        &["d dir 755 0:0", "d/a FILE 644 0:0", "d/b FILE 644 0:0", f],
    );
    let wildcard = RmAction {
        allow_wildcard: true,
        ..rm("/d/*")
    };
    check(
        &[FileStep::Rm(wildcard)],
        &["d dir", "d/a whiteout", "d/b whiteout"],
        &["d dir 755 0:0", f],
    );
}

#[test]
fn removal_follows_links_on_the_way_only() {
    let base = tree(vec![
        file("real/f", "x"),
        symlink("l", "real"),
        symlink("m", "real/f"),
    ]);
    assert_eq!(
        layer_paths(&base, &[FileStep::Rm(rm("/l/f"))]),
        ["real dir", "real/f whiteout"]
    );
    assert_eq!(
        layer_paths(&base, &[FileStep::Rm(rm("/m"))]),
        ["m whiteout"]
    );
    let refused = |action: RmAction| run(&base, &[FileStep::Rm(action)]).expect_err("refused");
    assert_eq!(
        refused(rm("/none")),
        "stat /none: no such file or directory"
    );
    assert_eq!(refused(rm("/")), "rmPath: invalid empty path");
    let tolerant = RmAction {
        allow_not_found: true,
        ..rm("/none")
    };
    assert_eq!(layer_paths(&base, &[FileStep::Rm(tolerant)]), [""; 0]);
}

#[test]
fn directories_are_made() {
    let base = tree(vec![
        mode(0o700, dir("there")),
        file("f", "x"),
        symlink("l", "/far"),
    ]);
    let made = |action: MkdirAction| layer_paths(&base, &[FileStep::Mkdir(action)]);
    assert_eq!(made(mkdir("/there")), [""; 0]);
    assert_eq!(made(mkdir("/l/x")), ["far dir", "far/x dir"]);
    let owned = MkdirAction {
        mode: 0o1777,
        owner: Some(Owner { uid: 1, gid: 2 }),
        ..mkdir("/a/b")
    };
    let merged = after(&Tree::empty(), &[FileStep::Mkdir(owned)]);
    assert_eq!(merged, ["a dir 777 1:2", "a/b dir 777 1:2"]);
    let refused =
        |action: MkdirAction| run(&base, &[FileStep::Mkdir(action)]).expect_err("refused");
    assert_eq!(refused(mkdir("/f/x")), "/f: not a directory");
    assert_eq!(refused(mkdir("/f")), "mkdir /f: not a directory");
    let alone = MkdirAction {
        make_parents: false,
        ..mkdir("/no/x")
    };
    assert_eq!(refused(alone), "mkdir /no/x: no such file or directory");
    let setgid = tree(vec![mode(0o2775, owned_by_group(9, dir("s")))]);
    let merged = after(
        &setgid,
        &[
            FileStep::Mkdir(mkdir("/s/t")),
            FileStep::Mkfile(mkfile("/s/f")),
        ],
    );
    assert_eq!(
        merged,
        [
            "s dir 2775 0:9",
            &format!("s/f {X} 644 0:9"),
            "s/t dir 2755 0:9"
        ]
    );
}

fn owned_by_group(gid: u32, entry: Entry) -> Entry {
    Entry { gid, ..entry }
}

#[test]
fn files_and_links_are_made() {
    let base = tree(vec![file("f", "old"), symlink("l", "f"), dir("d")]);
    assert_eq!(
        layer_paths(&base, &[FileStep::Mkfile(mkfile("/l"))]),
        [format!("f {X}")]
    );
    let refused = |step: FileStep<'_>| run(&base, &[step]).expect_err("refused");
    assert_eq!(
        refused(FileStep::Mkfile(mkfile("/d"))),
        "open /d: is a directory"
    );
    assert_eq!(
        refused(FileStep::Mkfile(mkfile("/no/f"))),
        "open /no/f: no such file or directory"
    );
    let link = |path: &str| {
        FileStep::Symlink(SymlinkAction {
            oldpath: "../x".to_owned(),
            newpath: path.to_owned(),
            ..SymlinkAction::default()
        })
    };
    assert_eq!(
        layer_paths(&base, &[link("/d/n")]),
        ["d dir", "d/n -> ../x"]
    );
    assert_eq!(refused(link("/d")), "symlink ../x /d: file exists");
}

#[test]
fn archives_are_unpacked_over_what_is_there() {
    let archive = tree(vec![
        file("bin/tool", "x"),
        mode(0o700, dir("etc")),
        linked("a", "x", 1),
        linked("b", "x", 1),
    ]);
    let base = tree(vec![
        symlink("app/bin", "/usr/bin"),
        dir("usr/bin"),
        file("app/etc", "x"),
        dir("app/a/x"),
    ]);
    let action = UnpackAction {
        dest: "/app".to_owned(),
        chown: Some(Owner { uid: 5, gid: 6 }),
        timestamp: None,
    };
    let merged = after(&base, &[FileStep::Unpack(&archive, action)]);
    let expected = [
        "app dir 755 0:0",
        "app/a FILE 644 5:6",
        "app/b FILE 644 5:6",
        "app/bin -> /usr/bin 777 0:0",
    ];
    let rest = [
        "app/etc dir 700 5:6",
        "usr dir 755 0:0",
        "usr/bin dir 755 0:0",
        "usr/bin/tool FILE 644 5:6",
    ];
    assert_eq!(merged, lines(&[expected, rest].concat()));
}

#[test]
fn name_files_are_carried() {
    let mut passwd = Toc::clone(&layer(
        1,
        vec![file("etc/passwd", "root"), file("etc/group", "g")],
    ));
    passwd.names.passwd = Some(b"root".to_vec());
    let source = Tree::merge(&[Arc::new(passwd)]);
    let toc = run(
        &Tree::empty(),
        &[FileStep::Copy(&source, copy("/etc", "/etc"))],
    )
    .expect("copied");
    assert_eq!(toc.names.passwd.as_deref(), Some(&b"root"[..]));
    assert_eq!(
        toc.names.group.as_deref(),
        Some(&b"read"[..]),
        "it was not in the source's TOC"
    );
    let elsewhere = tree(vec![file("p", "x")]);
    let toc = run(
        &Tree::empty(),
        &[FileStep::Copy(&elsewhere, copy("/p", "/etc/passwd"))],
    )
    .expect("copied");
    assert_eq!(toc.names.passwd.as_deref(), Some(&b"read"[..]));
    let toc = run(
        &Tree::empty(),
        &[
            FileStep::Copy(&elsewhere, copy("/p", "/etc/passwd")),
            FileStep::Rm(rm("/etc/passwd")),
        ],
    );
    assert_eq!(toc.expect("removed").names.passwd, None);
}

#[test]
fn a_snapshot_is_a_source_for_later_steps() {
    let base = tree(vec![file("a", "x")]);
    let mut draft = Draft::new(&base, NOW);
    draft.mkfile(&mkfile("/b")).expect("made");
    let now = draft.snapshot();
    draft
        .copy(&now, &copy("/", "/all"), &mut |_| Ok(Vec::new()))
        .expect("copied");
    let merged = base.with(Arc::new(draft.finish()));
    assert_eq!(merged.len(), 6, "root, a, b, all, all/a, all/b");
}

#[test]
fn name_files_behind_links_are_read() {
    let base = tree(vec![
        symlink("etc/passwd", "/usr/passwd"),
        file("usr/passwd", "x"),
        file("etc/group", "x"),
    ]);
    let mut asked = Vec::new();
    let names = name_files(&base, &mut |node| {
        asked.push(node.to_string());
        Ok(b"web:x:33:34::/:".to_vec())
    });
    assert_eq!(
        names.expect("read").passwd.as_deref(),
        Some(&b"web:x:33:34::/:"[..])
    );
    assert_eq!(asked, ["/usr/passwd", "/etc/group"]);
    let none = tree(vec![symlink("etc/passwd", "passwd"), dir("etc/group")]);
    assert_eq!(
        name_files(&none, &mut |_| unreachable!()).expect("nothing to read"),
        Default::default()
    );
}

#[test]
fn a_hundred_thousand_files_are_copied_at_once() {
    let begin = std::time::Instant::now();
    let source = tree(
        (0..100_000)
            .map(|n| file(&format!("dir/f{n:06}"), "x"))
            .collect(),
    );
    let action = CopyAction {
        chown: Some(Owner { uid: 1, gid: 1 }),
        ..copy("/dir", "/a/b")
    };
    let toc = run(
        &source,
        &[FileStep::Copy(&source, action), FileStep::Rm(rm("/dir"))],
    )
    .expect("copied");
    assert_eq!(
        toc.entries.len(),
        100_003,
        "a, a/b, the files, the whiteout"
    );
    assert!(
        begin.elapsed() < std::time::Duration::from_secs(60),
        "took {:?}",
        begin.elapsed()
    );
}
