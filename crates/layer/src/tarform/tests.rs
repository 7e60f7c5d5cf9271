use proptest::prelude::*;

use super::*;
use crate::testing::{Item, Put, any_items, at, flats, item, layer, without_flats};
use crate::{Limits, Time, read_tar};

fn golden_items() -> Vec<Item> {
    let mut rich = item("usr/bin/rich", Put::File(b"#!/bin/sh\n".to_vec()));
    rich.mode = 0o4755;
    rich.uid = 3_000_000;
    rich.mtime = Time {
        seconds: 1_700_000_000,
        nanos: 999_999_999,
    };
    rich.xattrs
        .insert(b"security.capability".to_vec(), b"\x01\n\0=".to_vec());
    let mut old = item("old", Put::Fifo);
    old.mtime = Time {
        seconds: -1,
        nanos: 5,
    };
    let long = "d".repeat(90) + "/" + &"f".repeat(90);
    vec![
        item("", Put::Directory),
        item("usr", Put::Directory),
        item("usr/bin", Put::Opaque),
        rich,
        item("usr/bin/second", Put::Link(b"usr/bin/rich".to_vec())),
        item("usr/lower", Put::Link(b"lib".to_vec())),
        item("dev/null", Put::Device(1, 3)),
        old,
        item(&long, Put::File(vec![7; 513])),
        item(b"n\xc3\xb6\xff", Put::Symlink(b"../\xff".to_vec())),
        item("var/gone", Put::Whiteout),
        item("holes", Put::File([vec![0; 70_000], vec![1]].concat())),
    ]
}

#[test]
fn the_form_is_frozen() {
    let (_dir, flats) = flats();
    let mut bytes = Vec::new();
    let summary = write_tar(&layer(&golden_items(), &flats), &flats, &mut bytes).unwrap();
    assert_eq!(summary.diff_id, Digest::of(&bytes));
    assert_eq!(summary.size, bytes.len() as u64);
    assert_eq!(
        summary.diff_id.to_string(),
        "sha256:cfd1fb67a651f88c584fd26fc5756d65e34c49b49a2fed804885dc82638f750c"
    );
    let empty = write_tar(&Toc::default(), &flats, &mut io::sink()).unwrap();
    assert_eq!(
        empty.diff_id.to_string(),
        "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
    );
}

/// GNU tar as an independent reader.
#[test]
fn gnu_tar_reads_it() {
    let (dir, flats) = flats();
    let file = dir.path().join("layer.tar");
    let mut out = std::fs::File::create(&file).unwrap();
    write_tar(&layer(&golden_items(), &flats), &flats, &mut out).unwrap();
    let listed = std::process::Command::new("tar")
        .args([
            "--numeric-owner",
            "--utc",
            "--full-time",
            "--quoting-style=escape",
            "-tvf",
        ])
        .arg(&file)
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    assert!(
        listed.status.success(),
        "{}",
        String::from_utf8_lossy(&listed.stderr)
    );
    let text = String::from_utf8(listed.stdout).unwrap();
    for wanted in [
        "-rwsr-xr-x 3000000/1500000  10 2023-11-14 22:13:20 usr/bin/rich\n",
        "hrwsr-xr-x 3000000/1500000   0 2023-11-14 22:13:20 usr/bin/second link to usr/bin/rich\n",
        "prw-r--r-- 0/0               0 1969-12-31 23:59:59 old\n",
        "crw-r--r-- 0/0             1,3 1970-01-01 00:00:01 dev/null\n",
        "n\\303\\266\\377 -> ../\\377\n",
        "---------- 0/0               0 1970-01-01 00:00:00 usr/bin/.wh..wh..opq\n",
        "---------- 0/0               0 1970-01-01 00:00:00 var/.wh.gone\n",
        &format!(" {}/{}\n", "d".repeat(90), "f".repeat(90)),
    ] {
        assert!(text.contains(wanted), "{wanted:?} is not in\n{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_layer_reads_back_from_its_tar(items in any_items()) {
        let (_dir, flats) = flats();
        let mut toc = layer(&items, &flats);
        let mut bytes = Vec::new();
        let summary = write_tar(&toc, &flats, &mut bytes).unwrap();
        let back = read_tar(bytes.as_slice(), &flats, &Limits::default()).unwrap();
        prop_assert_eq!(back.diff_id, summary.diff_id);
        for entry in &mut toc.entries {
            entry.mtime.nanos = 0;
            if matches!(entry.kind, Kind::Whiteout) {
                entry.mtime = Time::default();
            }
        }
        prop_assert_eq!(without_flats(&back.toc), without_flats(&toc));
        prop_assert_eq!(back.toc.layer_id(), toc.layer_id());
    }
}

#[test]
fn damage_and_the_impossible_are_named() {
    let (_dir, flats) = flats();
    let error = |toc: &Toc| {
        write_tar(toc, &flats, &mut io::sink())
            .unwrap_err()
            .to_string()
    };
    let mut toc = layer(&[item("a", Put::File(vec![1; 5]))], &flats);
    let Kind::File { content, .. } = &mut toc.entries[0].kind else {
        panic!("not a file")
    };
    *content = Digest::of("other");
    assert!(error(&toc).starts_with("the bytes of \"a\" have digest sha256:"));
    flats.remove(toc.flats[0]).unwrap();
    assert_eq!(
        error(&toc),
        "cannot read the bytes of \"a\" for the tar of a layer"
    );
    assert!(error(&layer(&[item("d/.wh.x", Put::Fifo)], &flats)).contains("mean removal"));
    let mut equals = item("x", Put::Fifo);
    equals.xattrs.insert(b"user.a=b".to_vec(), vec![]);
    assert!(error(&layer(&[equals], &flats)).contains("`=` in its name"));
    assert_eq!(at(&toc, "a").mode, 0o644);
}
