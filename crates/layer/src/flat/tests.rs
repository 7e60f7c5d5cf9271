#![allow(
    clippy::single_range_in_vec_init,
    reason = "lists of one range are meant"
)]

use super::*;
use crate::testing::flats;
use crate::{ExtentSource, FileReader};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;

fn id(n: u8) -> FlatId {
    FlatId::from_bytes([n; 32])
}

#[test]
fn files_are_aligned_padded_and_read_back() {
    let (_dir, flats) = flats();
    let writer = flats.writer().unwrap();
    let one = writer.append_file(&mut b"one".as_slice()).unwrap();
    let empty = writer.append_file(&mut b"".as_slice()).unwrap();
    let two = writer.append_file(&mut [5; 513].as_slice()).unwrap();
    assert_eq!(writer.commit(id(1)).unwrap(), 512 + 1024);
    assert_eq!(
        (one.size, one.content),
        (3, buildyard_model::Digest::of("one"))
    );
    assert_eq!((empty.size, empty.extents.len()), (0, 0));
    assert_eq!(two.extents[0].offset, 512);
    let bytes = fs::read(flats.path(id(1))).unwrap();
    assert_eq!(&bytes[..6], b"one\0\0\0");
    assert_eq!(bytes[512 + 513..], [0; 511]);
}

#[test]
fn long_zeros_become_holes() {
    let (_dir, flats) = flats();
    let mut data = vec![0u8; 3 << 20];
    data[200_000] = 1;
    data[(2 << 20) + 5] = 2;
    let writer = flats.writer().unwrap();
    let file = writer.append_file(&mut data.as_slice()).unwrap();
    let length = writer.commit(id(1)).unwrap();
    assert_eq!(length, 2 * 64 * 1024);
    assert_eq!(file.content, buildyard_model::Digest::of(&data));
    let mut read = Vec::new();
    FileReader::new(&flats, &[id(1)], file.size, &file.extents)
        .read_to_end(&mut read)
        .unwrap();
    assert!(read == data);
}

#[test]
fn threads_may_share_a_writer_and_race_for_an_id() {
    let (_dir, flats) = flats();
    let writer = flats.writer().unwrap();
    let files: Vec<_> = std::thread::scope(|scope| {
        let append = |n: u8| {
            writer
                .append_file(&mut vec![n + 1; 3_000_000].as_slice())
                .unwrap()
        };
        let threads: Vec<_> = (0..4).map(|n| scope.spawn(move || append(n))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let second = flats.writer().unwrap();
    second.append_file(&mut b"other".as_slice()).unwrap();
    writer.commit(id(1)).unwrap();
    second.commit(id(1)).unwrap();
    for (n, file) in files.iter().enumerate() {
        let mut read = Vec::new();
        FileReader::new(&flats, &[id(1)], file.size, &file.extents)
            .read_to_end(&mut read)
            .unwrap();
        assert!(read == vec![n as u8 + 1; 3_000_000], "file {n}");
    }
    assert_eq!(
        fs::read_dir(flats.directory.join("tmp"))
            .unwrap()
            .filter(|f| f.as_ref().unwrap().file_name() != "lock")
            .count(),
        0
    );
}

#[test]
fn a_sparse_copy_knows_what_it_has() {
    let (_dir, flats) = flats();
    let missing = |asked: Range<u64>| flats.missing(id(7), &[asked]).unwrap();
    assert_eq!(missing(0..10), [0..10]);
    flats
        .write_ranges(id(7), &[(100, b"abc"), (200, b"def")])
        .unwrap();
    flats.write_range(id(7), 103, b"xyz").unwrap();
    assert_eq!(missing(90..210), [90..100, 106..200, 203..210]);
    assert!(flats.open(id(7)).unwrap().is_none() && !flats.has(id(7)).unwrap());
    let mut buf = [0; 6];
    flats.read_at(id(7), 100, &mut buf).unwrap();
    assert_eq!(&buf, b"abcxyz");
    let gap = flats.read_at(id(7), 101, &mut [0; 6]).unwrap_err();
    assert_eq!(gap.kind(), io::ErrorKind::NotFound);
    // Another process fetches the gap; the open file here learns of it.
    let other = FlatFiles::new(flats.directory.as_path()).unwrap();
    other.write_range(id(7), 106, b"!").unwrap();
    flats.read_at(id(7), 101, &mut [0; 6]).unwrap();
}

#[test]
fn ranges_that_a_crash_tore_are_missing() {
    let (_dir, flats) = flats();
    flats.write_range(id(7), 0, b"abcd").unwrap();
    let log = flats.sparse_path(id(7)).with_extension("ranges");
    let mut file = fs::OpenOptions::new().append(true).open(&log).unwrap();
    file.write_all(&[0xff; 30]).unwrap();
    assert_eq!(flats.missing(id(7), &[0..8]).unwrap(), [4..8]);
    flats.write_range(id(7), 4, b"efgh").unwrap();
    assert_eq!(flats.missing(id(7), &[0..8]).unwrap(), []);
    let file = fs::OpenOptions::new().write(true).open(&log).unwrap();
    file.write_all_at(&[9], 0).unwrap();
    assert_eq!(flats.missing(id(7), &[0..8]).unwrap(), [0..4]);
}

#[test]
fn the_whole_file_takes_the_place_of_a_sparse_one() {
    let (_dir, flats) = flats();
    flats.write_range(id(7), 0, b"ab").unwrap();
    flats.read_at(id(7), 0, &mut [0; 2]).unwrap();
    let writer = flats.writer().unwrap();
    writer.append_file(&mut b"abcdef".as_slice()).unwrap();
    writer.commit(id(7)).unwrap();
    flats.read_at(id(7), 0, &mut [0; 6]).unwrap();
    assert_eq!(flats.missing(id(7), &[0..512]).unwrap(), []);
    let listed = flats.list().unwrap();
    assert_eq!(
        listed.iter().map(|u| (u.id, u.sparse)).collect::<Vec<_>>(),
        [(id(7), false)]
    );
    flats.remove(id(7)).unwrap();
    flats.remove(id(7)).unwrap();
    assert_eq!(flats.list().unwrap(), []);
    assert!(flats.read_at(id(7), 0, &mut [0; 6]).is_err());
}

#[test]
fn what_was_cut_off_is_missing() {
    let (_dir, flats) = flats();
    let writer = flats.writer().unwrap();
    writer.append_file(&mut [7; 700].as_slice()).unwrap();
    writer.commit(id(1)).unwrap();
    flats.write_range(id(2), 0, &[7; 700]).unwrap();
    for (id, path) in [
        (id(1), flats.path(id(1))),
        (id(2), flats.sparse_path(id(2))),
    ] {
        assert_eq!(flats.missing(id, &[0..700]).unwrap(), []);
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        // All bytes are there, but their last block is not whole.
        file.set_len(800).unwrap();
        assert_eq!(flats.missing(id, &[0..700]).unwrap(), [512..700]);
        file.set_len(0).unwrap();
        assert_eq!(flats.missing(id, &[0..700]).unwrap(), [0..700]);
    }
}

#[test]
fn what_this_process_wrote_is_known_until_it_changes() {
    let (_dir, flats) = flats();
    let (whole, sparse) = (id(1), id(2));
    let wrote = |flat| {
        let stamp = flats.stamp(flat).unwrap();
        stamp.is_some_and(|stamp| flats.wrote(flat, &stamp))
    };
    assert!(!wrote(whole));
    let writer = flats.writer().unwrap();
    writer.append_file(&mut b"contents".as_slice()).unwrap();
    writer.commit(whole).unwrap();
    flats.write_range(sparse, 0, b"contents").unwrap();
    flats.write_range(sparse, 8, b"more").unwrap();
    assert!(wrote(whole) && wrote(sparse));
    let other = FlatFiles::new(flats.directory.as_path()).unwrap();
    other.write_range(sparse, 12, b"more").unwrap();
    for flat in [whole, sparse] {
        let stamp = other.stamp(flat).unwrap().unwrap();
        assert!(!other.wrote(flat, &stamp), "by another process");
    }
    let file = fs::OpenOptions::new().write(true).open(flats.path(whole));
    file.unwrap().set_len(0).unwrap();
    assert!(!wrote(whole) && wrote(sparse));
}

struct Told(std::sync::Mutex<Vec<FlatId>>);

impl FlatWatcher for Told {
    fn removed(&self, flat: FlatId) {
        self.0.lock().unwrap().push(flat);
    }
}

#[test]
fn watchers_are_told_of_what_any_clone_removes_as_long_as_they_live() {
    let (_dir, flats) = flats();
    let told = Arc::new(Told(Default::default()));
    let watcher: Weak<Told> = Arc::downgrade(&told);
    flats.watch(watcher);
    flats.clone().remove(id(1)).unwrap();
    assert_eq!(*told.0.lock().unwrap(), [id(1)]);
    drop(told);
    flats.remove(id(2)).unwrap();
}

/// Takes `limit` bytes, no more, and notes what it is told.
#[derive(Debug)]
struct Small {
    limit: u64,
    taken: std::sync::Mutex<(u64, Vec<FlatId>)>,
}

impl Room for Small {
    fn claim(&self, bytes: u64) -> io::Result<()> {
        let mut taken = self.taken.lock().unwrap();
        if taken.0 + bytes > self.limit {
            return Err(io::ErrorKind::StorageFull.into());
        }
        taken.0 += bytes;
        Ok(())
    }

    fn give_back(&self, bytes: u64) {
        self.taken.lock().unwrap().0 -= bytes;
    }

    fn kept(&self, flat: FlatId) {
        self.taken.lock().unwrap().1.push(flat);
    }

    fn removed(&self, flat: FlatId, _bytes: u64) {
        self.taken.lock().unwrap().1.retain(|kept| *kept != flat);
    }
}

#[test]
fn writers_ask_for_room_before_they_write() {
    let directory = tempfile::tempdir().unwrap();
    let room = Arc::new(Small {
        limit: 10,
        taken: Default::default(),
    });
    let flats = FlatFiles::new(directory.path())
        .unwrap()
        .within(room.clone());
    let (kept, thrown_away) = (FlatId::from_bytes([1; 32]), FlatId::from_bytes([2; 32]));
    let writer = flats.writer().unwrap();
    writer.append_file(&mut &b"12345"[..]).unwrap();
    writer.commit(kept).unwrap();
    let writer = flats.writer().unwrap();
    writer.append_file(&mut &b"123"[..]).unwrap();
    let error = writer.append_file(&mut &b"456"[..]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    drop(writer);
    flats.write_range(thrown_away, 0, b"12345").unwrap();
    flats.write_range(thrown_away, 5, b"6").unwrap_err();
    assert_eq!(
        *room.taken.lock().unwrap(),
        (10, vec![kept, thrown_away]),
        "what was thrown away is given back"
    );
    assert!(
        flats
            .usage(kept)
            .unwrap()
            .is_some_and(|usage| !usage.sparse)
    );
    assert!(
        flats
            .usage(thrown_away)
            .unwrap()
            .is_some_and(|usage| usage.sparse)
    );
}
