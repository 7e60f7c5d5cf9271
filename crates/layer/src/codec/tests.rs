use proptest::prelude::*;

use super::*;
use crate::testing::{Put, any_items, flats, item, layer};
use crate::{Extent, Kind, Time};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_toc_reads_back_what_it_wrote(items in any_items()) {
        let (_dir, flats) = flats();
        let toc = layer(&items, &flats);
        prop_assert_eq!(Toc::decode(&toc.encode()).unwrap(), toc);
    }

    #[test]
    fn damaged_bytes_are_an_error_or_a_valid_toc(at in 0usize..200, value in any::<u8>()) {
        let (_dir, flats) = flats();
        let mut bytes = layer(&[item("a", Put::Directory), item("a/b", Put::File(vec![1; 10]))], &flats).encode();
        let at = at % bytes.len();
        bytes[at] = value;
        if let Ok(toc) = Toc::decode(&bytes) {
            prop_assert_eq!(toc.check(), Ok(()));
        }
    }
}

#[test]
fn other_bytes_are_refused() {
    let (_dir, flats) = flats();
    let good = layer(&[item("a", Put::Fifo)], &flats).encode();
    assert!(matches!(Toc::decode(b""), Err(TocError::Format)));
    assert!(matches!(Toc::decode(b"BYTOC\x02"), Err(TocError::Format)));
    assert!(matches!(
        Toc::decode(&good[..good.len() - 1]),
        Err(TocError::Compression(_))
    ));
    let plain = zstd::bulk::compress(
        &[
            &zstd::bulk::decompress(&good[6..], 1 << 20).unwrap()[..],
            b"x",
        ]
        .concat(),
        1,
    );
    let longer = [&good[..6], &plain.unwrap()].concat();
    assert!(matches!(Toc::decode(&longer), Err(TocError::Format)));
}

/// A change that breaks a TOC.
type Break = fn(&mut Toc);

#[test]
fn broken_invariants_are_refused() {
    let (_dir, flats) = flats();
    let items = [
        item("a", Put::Directory),
        item("a/b", Put::File(vec![1; 10])),
        item("a/c", Put::Link(b"a/b".to_vec())),
        item("d", Put::Whiteout),
    ];
    let good = layer(&items, &flats);
    fn extents(toc: &mut Toc, entry: usize) -> &mut Vec<Extent> {
        match &mut toc.entries[entry].kind {
            Kind::File { extents, .. } => extents,
            other => panic!("{other:?} is not a file"),
        }
    }
    let check = |what: &str, change: Break| {
        let mut toc = good.clone();
        change(&mut toc);
        assert!(
            matches!(Toc::decode(&toc.encode()), Err(TocError::Invalid(_))),
            "{what} was taken"
        );
    };
    check("an absolute path", |toc| {
        toc.entries[3].path = b"/d".to_vec()
    });
    check("a path with ..", |toc| {
        toc.entries[3].path = b"d/../x".to_vec()
    });
    check("a NUL", |toc| toc.entries[3].path = b"d\0".to_vec());
    check("disorder", |toc| toc.entries.swap(0, 3));
    check("a path twice", |toc| toc.entries[3].path = b"a".to_vec());
    check("a child of a file", |toc| toc.entries[0].kind = Kind::Fifo);
    check("mode bits of types", |toc| toc.entries[0].mode = 0o40755);
    check("a whiteout with a mode", |toc| toc.entries[3].mode = 0o644);
    check("too many nanoseconds", |toc| {
        toc.entries[0].mtime = Time {
            seconds: 0,
            nanos: 1_000_000_000,
        }
    });
    check("an attribute of overlayfs", |toc| {
        drop(
            toc.entries[0]
                .xattrs
                .insert(b"trusted.overlay.x".to_vec(), vec![]),
        )
    });
    check("an unknown flat file", |toc| extents(toc, 1)[0].flat = 1);
    check("an extent beyond the end", |toc| {
        extents(toc, 1)[0].length = 11
    });
    check("an overflowing extent", |toc| {
        extents(toc, 1)[0].at = u64::MAX
    });
    check("an unaligned file", |toc| extents(toc, 1)[0].offset = 1);
    check("links that differ", |toc| toc.entries[2].uid = 9);
    check("a link alone", |toc| drop(toc.entries.remove(2)));
}
