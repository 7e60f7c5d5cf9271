use std::io::Write;

use super::*;
use crate::Time;
use crate::tarread::push_record;
use crate::testing::{at, content, flats, paths};

/// A tar by hand.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn raw(
        &mut self,
        flag: u8,
        path: &[u8],
        link: &[u8],
        data: &[u8],
        edit: impl FnOnce(&mut tar::Header),
    ) -> &mut Self {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..path.len().min(100)]
            .copy_from_slice(&path[..path.len().min(100)]);
        header.as_old_mut().linkname[..link.len().min(100)]
            .copy_from_slice(&link[..link.len().min(100)]);
        header.set_entry_type(tar::EntryType::new(flag));
        header.set_size(data.len() as u64);
        header.set_mode(0o640);
        header.set_uid(5);
        header.set_gid(6);
        header.set_mtime(77);
        edit(&mut header);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn member(&mut self, flag: u8, path: &str, link: &str, data: &[u8]) -> &mut Self {
        self.raw(flag, path.as_bytes(), link.as_bytes(), data, |_| {})
    }

    fn file(&mut self, path: &str, data: &[u8]) -> &mut Self {
        self.member(b'0', path, "", data)
    }

    fn pax(&mut self, records: &[(&str, &[u8])]) -> &mut Self {
        let mut bytes = Vec::new();
        records
            .iter()
            .for_each(|(key, value)| push_record(&mut bytes, key.as_bytes(), value));
        self.member(b'x', "pax", "", &bytes)
    }

    fn end(&self) -> Vec<u8> {
        [&self.0[..], &[0; 1024]].concat()
    }
}

fn ingest_layer(tar: &Tar) -> (Toc, FlatFiles, tempfile::TempDir) {
    let (dir, flats) = flats();
    let bytes = tar.end();
    let got = read_tar(bytes.as_slice(), &flats, &Limits::default()).unwrap();
    assert_eq!(got.diff_id, Digest::of(&bytes));
    assert_eq!(got.bytes, bytes.len() as u64);
    assert!(std::fs::read(flats.path(got.flat)).unwrap() == bytes);
    got.toc.check().unwrap();
    (got.toc, flats, dir)
}

fn error_of(result: Result<Ingested, IngestError>) -> String {
    let error = result.expect_err("it is taken");
    let source = std::error::Error::source(&error)
        .map(|s| format!(": {s}"))
        .unwrap_or_default();
    format!("{error}{source}")
}

#[test]
fn names_data_and_metadata() {
    let mut tar = Tar::default();
    let long = "d/".repeat(120) + "name";
    tar.member(b'5', "./", "", b"")
        .file("./a", b"hello")
        .member(b'2', "./s", "/a/../b", b"");
    tar.member(
        b'L',
        "././@LongLink",
        "",
        &[long.as_bytes(), b"\0"].concat(),
    )
    .file("cut", &[3; 1000]);
    tar.pax(&[
        ("path", b"n\xff/x"),
        ("mtime", b"12.5"),
        ("uid", b"70000"),
        ("SCHILY.xattr.security.capability", b"\n=\0\xff"),
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
    ]);
    tar.file("short", b"");
    tar.raw(b'3', b"dev/null", b"", b"", |h| {
        h.set_device_major(1).unwrap();
        h.set_device_minor(3).unwrap();
    });
    tar.member(b'6', "fifo", "", b"")
        .raw(b'0', b"su", b"", b"x", |h| h.set_mode(0o104755));
    let (toc, flats, _dir) = ingest_layer(&tar);
    assert_eq!(content(&toc, "a", &flats), b"hello");
    assert_eq!(content(&toc, long, &flats), [3; 1000]);
    assert_eq!(
        (at(&toc, "a").mode, at(&toc, "a").uid, at(&toc, "a").gid),
        (0o640, 5, 6)
    );
    assert_eq!(
        at(&toc, "a").mtime,
        Time {
            seconds: 77,
            nanos: 0
        }
    );
    assert_eq!(
        at(&toc, "s").kind,
        Kind::Symlink {
            target: b"/a/../b".to_vec()
        }
    );
    let x = at(&toc, b"n\xff/x");
    assert_eq!(
        (x.uid, x.mtime),
        (
            70000,
            Time {
                seconds: 12,
                nanos: 500_000_000
            }
        )
    );
    assert_eq!(
        x.xattrs.iter().collect::<Vec<_>>(),
        [(&b"security.capability".to_vec(), &b"\n=\0\xff".to_vec())]
    );
    assert_eq!(
        at(&toc, "dev/null").kind,
        Kind::CharDevice { major: 1, minor: 3 }
    );
    assert_eq!(
        (&at(&toc, "fifo").kind, at(&toc, "su").mode),
        (&Kind::Fifo, 0o4755)
    );
    assert_eq!(at(&toc, "").kind, Kind::Directory { opaque: false });
}

#[test]
fn whiteouts_act_on_lower_layers_only() {
    let mut tar = Tar::default();
    tar.file(".wh.gone", b"")
        .file("kept", b"1")
        .file(".wh.kept", b"")
        .member(b'5', "dir", "", b"")
        .file("dir/x", b"");
    tar.file(".wh.dir", b"")
        .file("o/.wh..wh..opq", b"")
        .file("o/y", b"")
        .file(".wh.w", b"")
        .file("w/z", b"");
    tar.file(".wh..wh.plnk", b"");
    let (toc, _flats, _dir) = ingest_layer(&tar);
    assert_eq!(
        paths(&toc),
        ["dir", "dir/x", "gone", "kept", "o", "o/y", "w", "w/z"]
    );
    assert_eq!(at(&toc, "gone").kind, Kind::Whiteout);
    for opaque in ["dir", "o", "w"] {
        assert_eq!(
            at(&toc, opaque).kind,
            Kind::Directory { opaque: true },
            "{opaque}"
        );
    }
}

#[test]
fn the_last_of_two_members_wins() {
    let mut tar = Tar::default();
    tar.file("f", b"old")
        .file("f", b"new")
        .member(b'5', "d", "", b"")
        .file("d/x", b"")
        .file("d", b"file now");
    tar.file("e", b"")
        .member(b'5', "e", "", b"")
        .file("a", b"1")
        .member(b'1', "b", "a", b"")
        .file("a", b"2");
    let (toc, flats, _dir) = ingest_layer(&tar);
    assert_eq!(paths(&toc), ["a", "b", "d", "e", "f"]);
    assert_eq!(content(&toc, "f", &flats), b"new");
    assert_eq!(at(&toc, "e").kind, Kind::Directory { opaque: true });
    assert!(matches!(at(&toc, "b").kind, Kind::File { ino: 0, .. }));
    assert_eq!(content(&toc, "b", &flats), b"1");
}

#[test]
fn hard_links_share_an_inode_or_point_below() {
    let mut tar = Tar::default();
    tar.file("z", b"zz")
        .member(b'1', "a", "./z", b"")
        .member(b'1', "c", "/a", b"")
        .member(b'1', "low", "usr/x", b"");
    tar.file("q", b"")
        .member(b'1', "p", "q", b"")
        .member(b'2', "s", "t", b"")
        .member(b'1', "s2", "s", b"");
    let (toc, _flats, _dir) = ingest_layer(&tar);
    let ino = |path: &str| match at(&toc, path).kind {
        Kind::File { ino, .. } => ino,
        _ => panic!("{path} is not a file"),
    };
    assert_eq!(
        [ino("a"), ino("c"), ino("z"), ino("p"), ino("q")],
        [1, 1, 1, 2, 2]
    );
    assert_eq!(
        at(&toc, "low").kind,
        Kind::LinkBelow {
            target: b"usr/x".to_vec()
        }
    );
    assert_eq!(
        at(&toc, "s2").kind,
        Kind::Symlink {
            target: b"t".to_vec()
        }
    );
}

#[test]
fn paths_of_layers_stay_inside_and_go_through_the_layers_own_symlinks() {
    let mut tar = Tar::default();
    tar.file("../../etc/x", b"")
        .file("/abs", b"")
        .member(b'2', "lib", "usr/lib", b"")
        .file("lib/so", b"");
    tar.member(b'2', "up", "../../..", b"").file("up/top", b"");
    let (toc, _flats, _dir) = ingest_layer(&tar);
    assert_eq!(
        paths(&toc),
        ["abs", "etc/x", "lib", "top", "up", "usr/lib/so"]
    );
    let mut tar = Tar::default();
    tar.member(b'2', "a", "b", b"")
        .member(b'2', "b", "a", b"")
        .file("a/x", b"");
    let (_dir, flats) = flats();
    let error = error_of(read_tar(tar.end().as_slice(), &flats, &Limits::default()));
    assert_eq!(
        error,
        "archive member \"a/x\" is refused: its path goes through more than 40 symbolic links"
    );
}

/// Makes an archive with GNU tar of a sparse file, and reads it.
#[test]
fn sparse_files_of_gnu_tar() {
    let dir = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(dir.path().join("f")).unwrap();
    for n in 0..30 {
        std::os::unix::fs::FileExt::write_all_at(&file, b"data", n * 300_000).unwrap();
    }
    file.set_len(10_000_000).unwrap();
    let wanted = std::fs::read(dir.path().join("f")).unwrap();
    for format in [
        &["--format=gnu"][..],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix"],
    ] {
        let made = std::process::Command::new("tar")
            .args(format)
            .args(["-S", "-C"])
            .arg(dir.path())
            .args(["-cf", "-", "f"])
            .output()
            .unwrap();
        assert!(
            made.status.success() && made.stdout.len() < 1_000_000,
            "{format:?}"
        );
        let (_dir, flats) = flats();
        let got = read_tar(made.stdout.as_slice(), &flats, &Limits::default()).unwrap();
        got.toc.check().unwrap();
        assert!(content(&got.toc, "f", &flats) == wanted, "{format:?}");
        assert!(
            matches!(&at(&got.toc, "f").kind, Kind::File { content, .. } if *content == Digest::of(&wanted)),
            "{format:?}"
        );
    }
}

#[test]
fn name_files_are_kept() {
    let mut tar = Tar::default();
    tar.file("etc/passwd", b"root:x:0:0")
        .file("etc/group", &vec![b'x'; 2 << 20]);
    let (toc, _flats, _dir) = ingest_layer(&tar);
    assert_eq!(toc.names.passwd.as_deref(), Some(b"root:x:0:0".as_slice()));
    assert_eq!(toc.names.group, None);
}

#[test]
fn broken_archives_are_named() {
    let check = |bytes: &[u8], wanted: &str| {
        let (_dir, flats) = flats();
        let error = error_of(read_tar(bytes, &flats, &Limits::default()));
        assert!(error.contains(wanted), "{error:?} lacks {wanted:?}");
        assert_eq!(flats.list().unwrap(), []);
    };
    let mut tar = Tar::default();
    let good = tar.file("a", &[1; 600]).end();
    check(&good[..700], "cannot read the archive");
    check(&good[..100], "cannot read the archive");
    check(&[7; 2048], "malformed");
    check(
        &[&good[..1536], &[0; 512], &good[..512]].concat(),
        "a single block of zeros",
    );
    check(
        &Tar::default().pax(&[("path", b"x")]).end(),
        "ends after an extended header",
    );
    check(
        &Tar::default()
            .member(b'x', "p", "", b"12 path=x\n")
            .file("a", b"")
            .end(),
        "PAX record is malformed",
    );
    check(
        &Tar::default().member(b'Z', "a", "", b"").end(),
        "its type 'Z' is not known",
    );
    check(
        &Tar::default().member(b'3', "dev", "", b"").end(),
        "the device 0:0",
    );
    check(
        &Tar::default().member(b'1', "a", "a", b"").end(),
        "hard link",
    );
    check(
        &Tar::default().file("f", b"").file("f/x", b"").end(),
        "not a directory",
    );
    check(
        &Tar::default()
            .member(b'1', "a", "low", b"")
            .file("low", b"")
            .end(),
        "this layer replaces",
    );
    check(
        &Tar::default().file("d/.wh.", b"").end(),
        "whiteout without a name",
    );
    check(
        &Tar::default().member(b'2', "s", "", b"").end(),
        "symbolic link to nothing",
    );
    check(
        &Tar::default()
            .pax(&[("size", b"99999999999999999999")])
            .file("a", b"")
            .end(),
        "not a number",
    );
}

#[test]
fn limits_are_errors() {
    let check = |limits: Limits, tar: &Tar, wanted: &str| {
        let (_dir, flats) = flats();
        let error = error_of(read_tar(tar.end().as_slice(), &flats, &limits));
        assert!(error.contains(wanted), "{error:?} lacks {wanted:?}");
    };
    let mut tar = Tar::default();
    tar.file("a", &[1; 5000])
        .pax(&[("SCHILY.xattr.user.x", &[1; 3000])])
        .file("bbb", b"");
    let limits = Limits::default();
    check(
        Limits {
            bytes: 6000,
            ..limits.clone()
        },
        &tar,
        "more than the 6000 bytes",
    );
    check(
        Limits {
            entries: 1,
            ..limits.clone()
        },
        &tar,
        "more than the 1 members",
    );
    check(
        Limits {
            path: 2,
            ..limits.clone()
        },
        &tar,
        "more than 2 bytes",
    );
    check(
        Limits {
            header: 2000,
            ..limits.clone()
        },
        &tar,
        "header of more than 2000 bytes",
    );
    check(
        Limits {
            metadata: 3000,
            ..limits.clone()
        },
        &tar,
        "3000 bytes of names",
    );
    let mut petabyte = Tar::default();
    petabyte
        .pax(&[
            ("GNU.sparse.realsize", b"1000000000000000"),
            ("GNU.sparse.map", b"0,1"),
        ])
        .file("s", b"x");
    check(limits, &petabyte, "bytes that are allowed");
}

fn packed(bytes: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut gzip = Vec::new();
    for part in bytes.chunks(700) {
        let mut encoder = flate2::write::GzEncoder::new(&mut gzip, flate2::Compression::fast());
        encoder.write_all(part).unwrap();
        encoder.finish().unwrap();
    }
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(bytes).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(bytes).unwrap();
    let zstd = zstd::encode_all(bytes, 1).unwrap();
    vec![
        ("tar", bytes.to_vec()),
        ("gzip", gzip),
        ("bzip2", bzip2.finish().unwrap()),
        ("xz", xz.finish().unwrap()),
        ("zstd", zstd),
    ]
}

#[test]
fn archives_come_in_five_forms() {
    let mut tar = Tar::default();
    tar.file("a/.wh.b", b"plain").member(b'2', "s", "/etc", b"");
    for (form, bytes) in packed(&tar.end()) {
        let (_dir, flats) = flats();
        assert!(is_archive(bytes.as_slice()), "{form}");
        let got = read_archive(bytes.as_slice(), &flats, &Limits::default()).unwrap();
        assert_eq!(paths(&got.toc), ["a/.wh.b", "s"], "{form}");
        assert_eq!(content(&got.toc, "a/.wh.b", &flats), b"plain", "{form}");
    }
    for (form, bytes) in packed(&[b'x'; 3000]) {
        assert!(!is_archive(bytes.as_slice()), "{form}");
    }
    assert!(!is_archive(b"".as_slice()));
}

#[test]
fn archives_that_reach_outside_are_refused() {
    let check = |tar: &Tar, wanted: &str| {
        let (_dir, flats) = flats();
        let error = error_of(read_archive(
            tar.end().as_slice(),
            &flats,
            &Limits::default(),
        ));
        assert!(error.contains(wanted), "{error:?} lacks {wanted:?}");
    };
    check(
        Tar::default().file("/etc/passwd", b""),
        "\"/etc/passwd\" is refused: its path is absolute",
    );
    check(Tar::default().file("a/../../x", b""), "leads outside");
    check(
        Tar::default().member(b'1', "x", "../y", b""),
        "target lies outside",
    );
    check(Tar::default().member(b'3', "dev", "", b""), "device node");
    let bomb = packed(&Tar::default().file("zeros", &vec![0; 3 << 20]).end());
    for (form, bytes) in bomb.iter().skip(1) {
        let (_dir, flats) = flats();
        let limits = Limits {
            bytes: 1 << 20,
            ..Limits::default()
        };
        let error = error_of(read_archive(bytes.as_slice(), &flats, &limits));
        assert!(
            error.contains("more than the 1048576 bytes"),
            "{form}: {error}"
        );
    }
}

/// 64 MiB go through without being in memory: the reader makes them up, the flat file takes them.
#[test]
fn a_large_layer_streams() {
    let mut head = Tar::default();
    head.raw(b'0', b"big", b"", b"", |h| h.set_size(64 << 20));
    let stream = head
        .0
        .as_slice()
        .chain(std::io::repeat(9).take(64 << 20))
        .chain(std::io::repeat(0).take(1024));
    let (_dir, flats) = flats();
    let before = peak_memory();
    let got = read_tar(stream, &flats, &Limits::default()).unwrap();
    assert_eq!(got.bytes, (64 << 20) + 1536);
    let grown = peak_memory().saturating_sub(before);
    assert!(grown < 32 << 10, "memory grew by {grown} KiB");
}

/// The most memory this process ever had, in KiB.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|l| l.strip_prefix("VmHWM:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
