//! What a layer consists of is what the kernel shows.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use buildyard_layer::{Kind, Time};
use buildyard_model::Digest;

use super::{Bed, HUGE, Open, dir, file, numbered, paths, place, xattr};
use crate::testing::entry;

pub(in crate::snapshots) fn whiteouts_and_opaque_directories_hide(open: Open) {
    let mut bed = Bed::new(open);
    bed.push(vec![
        dir("a"),
        file("a/one"),
        file("a/two"),
        dir("b"),
        file("b/old"),
        dir("c"),
        file("c/x"),
    ]);
    bed.push(vec![
        entry(b"a/one", Kind::Whiteout),
        entry(b"b", Kind::Directory { opaque: true }),
        file("b/new"),
        entry(b"c", Kind::Whiteout),
    ]);
    assert_eq!(bed.see(paths), ["a", "a/two", "b", "b/new"]);
    bed.push(vec![dir("c"), file("c/again")]);
    assert_eq!(bed.see(paths), ["a", "a/two", "b", "b/new", "c", "c/again"]);
}

pub(in crate::snapshots) fn hard_links_are_one_file(open: Open) {
    let mut bed = Bed::new(open);
    bed.push(vec![
        dir("d"),
        numbered("d/a", 1),
        numbered("d/b", 1),
        numbered("c/c", 1),
    ]);
    bed.push(vec![file("other")]);
    let inodes = bed.see(|root| {
        let metadata = |path: &str| fs::metadata(root.join(path)).unwrap();
        (
            metadata("d/a").ino(),
            metadata("d/b").ino(),
            metadata("c/c").ino(),
            metadata("d/a").nlink(),
        )
    });
    assert_eq!((inodes.0, inodes.0, 3), (inodes.1, inodes.2, inodes.3));
}

pub(in crate::snapshots) fn attributes_capabilities_and_set_uid_are_kept(open: Open) {
    // struct vfs_cap_data, revision 2, effective: cap_net_raw.
    let capability: Vec<u8> = [0x0200_0001u32, 1 << 13, 0, 0, 0]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    let mut program = file("bin/ping");
    (program.mode, program.uid, program.gid) = (0o755, 3, 4);
    program.mtime = Time {
        seconds: 1_000_000_000,
        nanos: 123_456_789,
    };
    program.xattrs = BTreeMap::from([
        (b"security.capability".to_vec(), capability.clone()),
        (b"user.note".to_vec(), b"any \xff bytes".to_vec()),
    ]);
    let mut su = file("bin/su");
    su.mode = 0o6755;
    let mut tmp = dir("tmp");
    (tmp.mode, tmp.mtime.seconds) = (0o1777, -5);
    let mut bed = Bed::new(open);
    bed.push(vec![dir("bin"), program, su, tmp]);
    bed.push(vec![file("more")]);
    let seen = bed.see(|root| {
        let ping = root.join("bin/ping");
        let metadata = fs::metadata(&ping).unwrap();
        let mode = |path: &str| fs::metadata(root.join(path)).unwrap().mode() & 0o7777;
        let times = (
            metadata.mtime(),
            metadata.mtime_nsec(),
            fs::metadata(root.join("tmp")).unwrap().mtime(),
        );
        let owner = (metadata.uid(), metadata.gid());
        let xattrs = (
            xattr(&ping, c"security.capability"),
            xattr(&ping, c"user.note"),
        );
        (
            owner,
            mode("bin/ping"),
            mode("bin/su"),
            mode("tmp"),
            times,
            xattrs,
        )
    });
    let xattrs = (capability, b"any \xff bytes".to_vec());
    assert_eq!(
        seen,
        (
            (3, 4),
            0o755,
            0o6755,
            0o1777,
            (1_000_000_000, 123_456_789, -5),
            xattrs
        )
    );
}

pub(in crate::snapshots) fn devices_and_pipes_are_what_they_are(open: Open) {
    let mut bed = Bed::new(open);
    bed.push(vec![
        entry(b"null", Kind::CharDevice { major: 1, minor: 3 }),
        entry(
            b"disk",
            Kind::BlockDevice {
                major: 259,
                minor: 700,
            },
        ),
        entry(b"pipe", Kind::Fifo),
        entry(
            b"link",
            Kind::Symlink {
                target: b"/no/where".to_vec(),
            },
        ),
    ]);
    bed.push(vec![file("more")]);
    bed.see(|root| {
        let look = |path: &str| fs::symlink_metadata(root.join(path)).unwrap();
        assert!(
            look("null").file_type().is_char_device()
                && look("null").rdev() == rustix::fs::makedev(1, 3)
        );
        assert!(
            look("disk").file_type().is_block_device()
                && look("disk").rdev() == rustix::fs::makedev(259, 700)
        );
        assert!(look("pipe").file_type().is_fifo());
        assert_eq!(
            fs::read_link(root.join("link")).unwrap(),
            Path::new("/no/where")
        );
    });
}

pub(in crate::snapshots) fn sparse_files_stay_sparse(open: Open) {
    let kind = Kind::File {
        size: HUGE,
        content: Digest::of(""),
        extents: Vec::new(),
        ino: 0,
    };
    let mut bed = Bed::new(open);
    bed.push(vec![entry(b"huge", kind)]);
    let (size, data) = bed.see(|root| {
        let file = fs::File::open(root.join("huge")).unwrap();
        let data = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(0));
        (file.metadata().unwrap().size(), data)
    });
    assert_eq!((size, data), (HUGE, Err(rustix::io::Errno::NXIO)));
    assert!(
        bed.snapshots.holds()[0].1 < 1 << 20,
        "a hole occupies nothing"
    );
}

pub(in crate::snapshots) fn long_names_and_any_bytes_are_kept(open: Open) {
    let mut path = vec![0xff, 0xfe, b'\n', b'\\', b':', b','];
    path.extend([b'/'; 1]);
    path.extend([b'n'; 255]);
    let mut bed = Bed::new(open);
    bed.push(vec![entry(&path, Kind::Fifo)]);
    bed.push(vec![file("more")]);
    bed.see(move |root| {
        assert!(
            fs::symlink_metadata(place(root, &path))
                .unwrap()
                .file_type()
                .is_fifo()
        )
    });
}
