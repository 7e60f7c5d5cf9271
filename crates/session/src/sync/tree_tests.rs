use super::*;
use crate::wire::Stat;

fn file(path: &str, size: i64) -> Stat {
    Stat {
        path: path.into(),
        mode: 0o644,
        size,
        mod_time: 5,
        ..Default::default()
    }
}

fn link(path: &str, target: &str) -> Stat {
    Stat {
        linkname: target.into(),
        ..file(path, 0)
    }
}

fn tree<'a>(previous: Option<&'a Toc>) -> Tree<'a> {
    Tree::new(previous, SyncLimits::default())
}

/// Digests as the writer would give them: of the number.
fn digests(wanted: &[Option<Wanted>]) -> HashMap<u32, Digest> {
    wanted
        .iter()
        .flatten()
        .map(|wanted| (wanted.id, Digest::of(wanted.id.to_string())))
        .collect()
}

fn flat(byte: u8) -> FlatId {
    FlatId::from_bytes([byte; 32])
}

#[test]
fn files_get_places_on_boundaries_and_empty_ones_none() {
    let mut tree = tree(None);
    let stats = [
        file("a", 1),
        file("b", 0),
        file("c", 512),
        file("d", 513),
        file("e", 1),
    ];
    let places: Vec<_> = stats
        .into_iter()
        .map(|stat| tree.add(stat).unwrap().map(|wanted| wanted.offset))
        .collect();
    assert_eq!(places, [Some(0), None, Some(512), Some(1024), Some(2048)]);
    assert_eq!(tree.pack_length(), 2560);
}

#[test]
fn hard_links_share_a_number_and_a_content() {
    let mut tree = tree(None);
    let stats = [
        file("a", 1),
        file("b", 2),
        link("c", "b"),
        file("d", 1),
        link("e", "a"),
        link("f", "b"),
    ];
    let wanted: Vec<_> = stats
        .into_iter()
        .map(|stat| tree.add(stat).unwrap())
        .collect();
    let toc = tree.finish(&digests(&wanted), Some(flat(1))).unwrap();
    let files: Vec<_> = toc
        .entries
        .iter()
        .map(|entry| (entry.path.as_slice(), entry.kind.clone()))
        .collect();
    let inodes = files.iter().map(|(_, kind)| match kind {
        Kind::File { ino, .. } => *ino,
        _ => panic!("{kind:?}"),
    });
    assert_eq!(inodes.collect::<Vec<_>>(), [1, 2, 2, 0, 1, 2]);
    assert_eq!(files[1].1, files[5].1);
    assert_eq!(files[0].1, files[4].1);
}

#[test]
fn a_hard_link_to_what_is_no_earlier_file_is_refused() {
    for stats in [
        vec![link("a", "b")],
        vec![file("a", 1), link("b", "c")],
        vec![link("a", "a")],
    ] {
        let mut tree = tree(None);
        let outcome: Result<Vec<_>, _> = stats.into_iter().map(|stat| tree.add(stat)).collect();
        assert!(outcome.unwrap_err().contains("hard link"));
    }
}

#[test]
fn kinds_are_read_from_gos_modes_and_sockets_are_left_out() {
    let stat = |path: &str, bits| Stat {
        path: path.into(),
        mode: bits | 0o700,
        devmajor: 1,
        devminor: 3,
        ..Default::default()
    };
    let mut tree = tree(None);
    for stat in [
        stat("block", mode::DEVICE),
        stat("char", mode::DEVICE | mode::CHAR_DEVICE),
        stat("dir", mode::DIR | mode::STICKY),
        stat("fifo", mode::NAMED_PIPE),
        Stat {
            linkname: "../../out".into(),
            ..stat("link", mode::SYMLINK)
        },
        stat("socket", mode::SOCKET),
        stat("strange", mode::IRREGULAR),
    ] {
        assert_eq!(tree.add(stat).unwrap(), None);
    }
    let toc = tree.finish(&HashMap::new(), None).unwrap();
    let kinds: Vec<_> = toc.entries.iter().map(|entry| entry.kind.clone()).collect();
    let expected = [
        Kind::BlockDevice { major: 1, minor: 3 },
        Kind::CharDevice { major: 1, minor: 3 },
        Kind::Directory { opaque: false },
        Kind::Fifo,
        Kind::Symlink {
            target: b"../../out".to_vec(),
        },
    ];
    assert_eq!(kinds, expected);
    assert_eq!(toc.entries[2].mode, 0o1700);
    assert!(toc.flats.is_empty());
}

#[test]
fn a_socket_takes_its_number_all_the_same() {
    let mut tree = tree(None);
    tree.add(Stat {
        path: b"a".to_vec(),
        mode: mode::SOCKET,
        ..Default::default()
    })
    .unwrap();
    assert_eq!(
        tree.add(file("b", 1)).unwrap().map(|wanted| wanted.id),
        Some(1)
    );
}

#[test]
fn unchanged_files_come_from_the_previous_tree() {
    let mut first = tree(None);
    let wanted: Vec<_> = [file("a", 1), file("b", 2), file("c", 3)]
        .map(|stat| first.add(stat).unwrap())
        .into();
    let first = first.finish(&digests(&wanted), Some(flat(1))).unwrap();

    let mut second = tree(Some(&first));
    let changed = Stat {
        mod_time: 6,
        ..file("b", 2)
    };
    let wanted: Vec<_> = [file("a", 1), changed, file("bb", 1), file("c", 3)]
        .map(|stat| second.add(stat).unwrap())
        .into();
    let ids: Vec<_> = wanted.iter().flatten().map(|wanted| wanted.id).collect();
    assert_eq!(ids, [1, 2]);
    let second = second.finish(&digests(&wanted), Some(flat(2))).unwrap();
    assert_eq!(second.flats, [flat(2), flat(1)]);
    let (old, new) = (&first.entries[2].kind, &second.entries[3].kind);
    let (
        Kind::File {
            content, extents, ..
        },
        Kind::File {
            content: kept,
            extents: moved,
            ..
        },
    ) = (old, new)
    else {
        panic!("{old:?} {new:?}");
    };
    assert_eq!(
        (content, extents[0].offset, extents[0].flat),
        (kept, moved[0].offset, 0)
    );
    assert_eq!(moved[0].flat, 1);

    let mut third = tree(Some(&second));
    let changed = Stat {
        mod_time: 6,
        ..file("b", 2)
    };
    for stat in [file("a", 1), changed, file("bb", 1), file("c", 3)] {
        assert_eq!(third.add(stat).unwrap(), None);
    }
    let third = third.finish(&HashMap::new(), None).unwrap();
    assert_eq!(
        third.flats,
        [flat(1), flat(2)],
        "in the order of use, and no empty place left"
    );
    assert_eq!(third.entries.len(), 4);
}

#[test]
fn what_says_that_a_file_is_another_makes_it_travel() {
    let mut first = tree(None);
    let wanted = [first.add(file("a", 1)).unwrap()];
    let first = first.finish(&digests(&wanted), Some(flat(1))).unwrap();
    for changed in [
        Stat {
            size: 2,
            ..file("a", 1)
        },
        Stat {
            mod_time: 6,
            ..file("a", 1)
        },
        Stat {
            mode: 0o755,
            ..file("a", 1)
        },
        Stat {
            uid: 1,
            ..file("a", 1)
        },
        Stat {
            gid: 1,
            ..file("a", 1)
        },
    ] {
        assert!(
            tree(Some(&first)).add(changed.clone()).unwrap().is_some(),
            "{changed:?}"
        );
    }
}

#[test]
fn machine_bound_attributes_are_left_out() {
    let names = [
        "user.a",
        "security.capability",
        "security.selinux",
        "trusted.overlay.opaque",
        "user.overlay.x",
    ];
    let xattrs = names.map(|name| (name.to_owned(), vec![1])).into();
    let mut tree = tree(None);
    tree.add(Stat {
        xattrs,
        ..file("a", 0)
    })
    .unwrap();
    let toc = tree.finish(&HashMap::new(), None).unwrap();
    let kept: Vec<_> = toc.entries[0]
        .xattrs
        .keys()
        .map(|name| String::from_utf8_lossy(name))
        .collect();
    assert_eq!(kept, ["security.capability", "user.a"]);
}

#[test]
fn limits_hold() {
    let limits = SyncLimits {
        entries: 2,
        bytes: 1024,
        ..Default::default()
    };
    let mut many = Tree::new(None, limits);
    many.add(file("a", 0)).unwrap();
    many.add(file("b", 0)).unwrap();
    assert_eq!(many.add(file("c", 0)).unwrap_err(), "more than 2 paths");
    let mut large = Tree::new(None, limits);
    assert_eq!(
        large.add(file("a", 1025)).unwrap_err(),
        "more than 1024 bytes to transfer"
    );
    assert!(Tree::new(None, limits).add(file("a", i64::MAX)).is_err());
}
