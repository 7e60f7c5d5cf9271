//! A layer's bytes held against its TOC without being unpacked.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::UnpackError;
use super::data::Data;
use crate::{ExtentSource, Kind, Toc};

/// How much of a file is read at once.
const BUFFER: usize = 256 << 10;
/// Files that a thread takes at a time.
const FILES: usize = 64;

/// Reads every file of `toc` on up to `threads` threads and checks its digest.
///
/// # Errors
/// [`UnpackError::Read`] or [`UnpackError::Damaged`] for a file that is not what the TOC says.
pub fn verify(
    toc: &Toc,
    source: &(dyn ExtentSource + Sync),
    threads: usize,
) -> Result<(), UnpackError> {
    let files = files(toc);
    let next = AtomicUsize::new(0);
    let work = || {
        let mut buffer = vec![0; BUFFER];
        loop {
            let from = next.fetch_add(FILES, Ordering::Relaxed);
            let Some(rest) = files.get(from..).filter(|rest| !rest.is_empty()) else {
                return Ok(());
            };
            for file in &rest[..rest.len().min(FILES)] {
                let read = file.read(source, &mut buffer, &mut |_, _| Ok(()));
                read.inspect_err(|_| next.store(files.len(), Ordering::Relaxed))?;
            }
        }
    };
    let threads = threads.min(files.len().div_ceil(FILES));
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut outcome = work();
        for other in others {
            outcome = outcome.and(other.join().expect("reading does not panic"));
        }
        outcome
    })
}

/// The files of a layer, each inode once.
fn files(toc: &Toc) -> Vec<Data<'_>> {
    let mut seen = HashSet::new();
    let mut files = Vec::new();
    for entry in &toc.entries {
        let Kind::File {
            size,
            content,
            extents,
            ino,
        } = &entry.kind
        else {
            continue;
        };
        if *ino == 0 || seen.insert(*ino) {
            files.push(Data {
                path: &entry.path,
                size: *size,
                content: *content,
                extents,
                flats: &toc.flats,
            });
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::testing::flats;
    use crate::{Entry, Time, random_flat_id};

    #[test]
    fn one_wrong_byte_among_many_files_is_found() {
        let (_dir, flats) = flats();
        let writer = flats.writer().unwrap();
        let mut entries = Vec::new();
        for number in 0..1000u32 {
            let bytes = number.to_le_bytes().repeat(100);
            let file = writer.append_file(&mut &bytes[..]).unwrap();
            entries.push(Entry {
                path: format!("{number:04}").into_bytes(),
                kind: Kind::File {
                    size: file.size,
                    content: file.content,
                    extents: file.extents,
                    ino: 0,
                },
                mode: 0o644,
                uid: 0,
                gid: 0,
                mtime: Time::default(),
                xattrs: Default::default(),
            });
        }
        let flat = random_flat_id();
        let toc = Toc {
            entries,
            flats: vec![flat],
            ..Toc::default()
        };
        assert!(matches!(
            verify(&toc, &flats, 3),
            Err(UnpackError::Read { .. })
        ));
        writer.commit(flat).unwrap();
        verify(&toc, &flats, 3).unwrap();
        let file = std::fs::File::options()
            .write(true)
            .open(flats.path(flat))
            .unwrap();
        file.write_all_at(b"!", 777 * 512 + 399).unwrap();
        for threads in [0, 1, 3] {
            let error = verify(&toc, &flats, threads).unwrap_err();
            assert!(
                matches!(&error, UnpackError::Damaged { path, .. } if path == "0777"),
                "{error}"
            );
        }
    }
}
