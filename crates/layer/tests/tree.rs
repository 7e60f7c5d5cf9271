//! The merged view of a chain: cases by hand, and against a naive model that applies layer by layer to a map.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use buildyard_layer::{Entry, Follow, Kind, Toc, Tree};
use proptest::prelude::*;
use support::*;

fn check(layers: &[Vec<Entry>], expected: &[&str]) {
    let layers: Vec<Arc<Toc>> = layers
        .iter()
        .map(|entries| layer(1, entries.clone()))
        .collect();
    let shown = show(&Tree::merge(&layers));
    let paths: Vec<String> = shown
        .iter()
        .map(|line| line.rsplitn(3, ' ').last().unwrap_or("").to_owned())
        .collect();
    assert_eq!(paths, expected);
}

#[test]
fn layers_are_merged() {
    let x = "file 2d7116";
    check(&[], &[]);
    check(&[vec![file("a/b", "x")]], &["a dir", &format!("a/b {x}")]);
    check(&[vec![file("a", "x")], vec![whiteout("a")]], &[]);
    check(
        &[vec![file("a/b/c", "x")], vec![whiteout("a/b")]],
        &["a dir"],
    );
    check(
        &[vec![file("a/b", "x")], vec![opaque("a"), file("a/c", "x")]],
        &["a dir", &format!("a/c {x}")],
    );
    check(
        &[vec![file("a/b", "x")], vec![dir("a")]],
        &["a dir", &format!("a/b {x}")],
    );
    check(
        &[vec![file("a/b", "x")], vec![symlink("a", "b")]],
        &["a -> b"],
    );
    check(
        &[vec![symlink("a", "b")], vec![file("a/b", "x")]],
        &["a dir", &format!("a/b {x}")],
    );
    check(
        &[
            vec![file("a/b", "x")],
            vec![whiteout("a"), file("a/c", "x")],
        ],
        &["a dir", &format!("a/c {x}")],
    );
    check(&[vec![whiteout("a/b")]], &[]);
    check(
        &[
            vec![file("a", "x")],
            vec![link_below("b", "a"), whiteout("a")],
        ],
        &[&format!("b {x}")],
    );
    check(
        &[vec![file("a", "x")], vec![link_below("b", "zz")]],
        &[&format!("a {x}")],
    );
}

#[test]
fn hard_links_across_layers_are_one_inode() {
    let merged = Tree::merge(&[
        layer(
            1,
            vec![linked("a", "x", 1), linked("b", "x", 1), file("z", "x")],
        ),
        layer(
            2,
            vec![
                link_below("c", "b"),
                link_below("y", "z"),
                linked("n", "x", 1),
            ],
        ),
    ]);
    let inode = |path: &str| merged.get(path.as_bytes()).expect(path).inode;
    assert_eq!(inode("a"), inode("b"));
    assert_eq!(inode("a"), inode("c"));
    assert_eq!(inode("z"), inode("y"));
    assert_ne!(inode("a"), inode("z"));
    assert_ne!(inode("a"), inode("n"));
    let flat = merged.to_toc();
    let inos: Vec<u32> = flat
        .entries
        .iter()
        .filter_map(|entry| match entry.kind {
            Kind::File { ino, .. } => Some(ino),
            _ => None,
        })
        .collect();
    assert_eq!(inos, [1, 1, 1, 0, 2, 2], "a b c n y z");
    assert_eq!(flat.flats.len(), 2);
}

#[test]
fn dangling_links_below_are_reported() {
    let merged = Tree::merge(&[layer(1, vec![link_below("b", "missing")])]);
    assert_eq!(merged.unresolved(), [b"b".to_vec()]);
    assert!(merged.is_empty());
}

#[test]
fn the_root_has_metadata_of_its_own() {
    assert_eq!(
        (
            Tree::empty().root().entry.mode,
            Tree::empty().root().implied
        ),
        (0o755, true)
    );
    let set = tree(vec![mode(0o700, dir("")), file("a", "x")]);
    assert_eq!((set.root().entry.mode, set.root().implied), (0o700, false));
    assert_eq!(set.to_toc().entries[0].path, b"");
}

#[test]
fn children_are_listed_in_order() {
    let tree = tree(vec![
        file("a/z", "x"),
        file("a/b/c", "x"),
        file("a-", "x"),
        file("b", "x"),
    ]);
    let children = |dir: &str| -> Vec<String> {
        tree.children(dir.as_bytes())
            .map(|node| String::from_utf8_lossy(node.path).into_owned())
            .collect()
    };
    assert_eq!(children(""), ["a", "a-", "b"]);
    assert_eq!(children("a"), ["a/b", "a/z"]);
    assert_eq!(children("b"), [""; 0]);
    assert_eq!(children("missing"), [""; 0]);
    assert_eq!(tree.files_beneath(b"a").count(), 2);
}

#[test]
fn symbolic_links_stay_inside_the_root() {
    let tree = tree(vec![
        symlink("abs", "/real/dir"),
        symlink("up", "../../../real"),
        symlink("loop", "loop"),
        symlink("last", "real/file"),
        symlink("chain", "abs"),
        symlink("dangling", "no/where"),
        symlink("real/back", "../abs/x"),
        dir("real/dir"),
        file("real/file", "x"),
    ]);
    let check = |path: &str, follow: Follow, expected: &str| {
        let found = tree.resolve(path.as_bytes(), follow);
        let text = found.map_or_else(
            |error| error.to_string(),
            |path| String::from_utf8_lossy(&path).into_owned(),
        );
        assert_eq!(text, expected, "{path}");
    };
    check("/", Follow::All, "");
    check("abs/x", Follow::All, "real/dir/x");
    check("abs", Follow::Parents, "abs");
    check("abs/", Follow::Parents, "abs");
    check("chain/../file", Follow::All, "real/file");
    check("up/file", Follow::All, "real/file");
    check("last", Follow::All, "real/file");
    check("last", Follow::Parents, "last");
    check("dangling/x", Follow::All, "no/where/x");
    check("real/back", Follow::All, "real/dir/x");
    check("../../real", Follow::All, "real");
    check("new/path", Follow::All, "new/path");
    check("loop", Follow::All, "/loop: too many links");
    check("real/file/x", Follow::All, "/real/file: not a directory");
}

/// Kind, mode and inode by path.
type Model = BTreeMap<String, (String, u32, u64)>;

fn remove_beneath(model: &mut Model, path: &str) {
    model.retain(|other, _| !other.starts_with(&format!("{path}/")));
}

fn apply_naively(model: &mut Model, layer: &Toc, number: u64) {
    let before = model.clone();
    for (index, entry) in layer.entries.iter().enumerate() {
        let path = String::from_utf8_lossy(&entry.path).into_owned();
        let mut new = (
            kind_text(&entry.kind),
            entry.mode,
            number << 32 | index as u64,
        );
        match &entry.kind {
            Kind::Whiteout => {
                model.remove(&path);
                remove_beneath(model, &path);
                continue;
            }
            Kind::LinkBelow { target } => match before.get(&*String::from_utf8_lossy(target)) {
                Some(target) if target.0 != "dir" => new = target.clone(),
                _ => continue,
            },
            Kind::File { ino, .. } if *ino != 0 => new.2 = number << 32 | 1 << 31 | u64::from(*ino),
            _ => {}
        }
        let mut above = String::new();
        for part in path
            .rsplit_once('/')
            .map_or("", |(above, _)| above)
            .split('/')
            .filter(|p| !p.is_empty())
        {
            above = if above.is_empty() {
                part.to_owned()
            } else {
                format!("{above}/{part}")
            };
            if model.get(&above).is_none_or(|(kind, ..)| kind != "dir") {
                model.insert(above.clone(), ("dir".to_owned(), 0o755, 0));
            }
        }
        if new.0 != "dir" || matches!(entry.kind, Kind::Directory { opaque: true }) {
            remove_beneath(model, &path);
        }
        model.insert(path, new);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_merge_is_what_applying_layer_by_layer_gives(layers in proptest::collection::vec(any_layer(), 0..5)) {
        let mut model = Model::new();
        for (number, layer) in layers.iter().enumerate() {
            apply_naively(&mut model, layer, number as u64 + 1);
        }
        let tree = Tree::merge(&layers);
        let nodes: Vec<_> = tree.walk(b"").skip(1).collect();
        let merged: BTreeMap<String, (String, u32)> = nodes
            .iter()
            .map(|node| {
                let path = String::from_utf8_lossy(node.path).into_owned();
                (path, (kind_text(&node.entry.kind), node.entry.mode))
            })
            .collect();
        let expected = model.iter().map(|(path, (kind, mode, _))| (path.clone(), (kind.clone(), *mode))).collect();
        prop_assert_eq!(merged, expected);
        for a in nodes.iter().filter(|node| !node.is_directory()) {
            for b in nodes.iter().filter(|node| !node.is_directory()) {
                let number = |path: &[u8]| model[&*String::from_utf8_lossy(path)].2;
                prop_assert_eq!(a.inode == b.inode, number(a.path) == number(b.path));
            }
            prop_assert_eq!(tree.get(a.path).map(|found| found.inode), Some(a.inode));
        }
    }

    #[test]
    fn flattening_keeps_the_view(layers in proptest::collection::vec(any_layer(), 0..5)) {
        let tree = Tree::merge(&layers);
        prop_assert_eq!(tree.to_toc().check(), Ok(()));
        let flat = Tree::merge(&[Arc::new(tree.to_toc())]);
        prop_assert_eq!(show(&tree), show(&flat));
        prop_assert_eq!(flat.to_toc(), tree.to_toc());
    }
}

#[test]
fn a_hundred_thousand_names_and_two_hundred_layers() {
    let begin = Instant::now();
    let mut layers = vec![layer(
        0,
        (0..100_000)
            .map(|n| file(&format!("dir/f{n:06}"), "x"))
            .collect(),
    )];
    for n in 0..200u32 {
        let mut entries: Vec<Entry> = (0..100)
            .map(|k| file(&format!("dir/f{:06}", (n * 431 + k * 997) % 100_000), "y"))
            .collect();
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        entries.dedup_by(|a, b| a.path == b.path);
        entries.push(whiteout(&format!("dir/g{n}")));
        entries.push(file(&format!("dir/h{n}"), "z"));
        layers.push(layer(1, entries));
    }
    let tree = Tree::merge(&layers);
    assert_eq!(tree.len(), 100_202);
    assert_eq!(tree.children(b"dir").count(), 100_200);
    for n in (0..100_000).step_by(7) {
        assert!(tree.get(format!("dir/f{n:06}").as_bytes()).is_some());
    }
    assert_eq!(tree.to_toc().entries.len(), 100_201);
    assert!(
        begin.elapsed() < Duration::from_secs(60),
        "took {:?}",
        begin.elapsed()
    );
}
