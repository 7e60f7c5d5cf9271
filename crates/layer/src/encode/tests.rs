use std::io::Read;

use super::*;
use crate::testing::{Put, flats, item, layer};
use crate::{Compression, FlatFiles, decompressor};

/// A layer of about 5 MiB that compresses somewhat.
fn sample(flats: &FlatFiles) -> Toc {
    let mut state = 1u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 28) as u8
    };
    let big: Vec<u8> = (0..5_000_000).map(|_| noise()).collect();
    layer(
        &[
            item("big", Put::File(big)),
            item("small", Put::File(b"x".to_vec())),
        ],
        flats,
    )
}

fn blob(toc: &Toc, flats: &FlatFiles, encoding: Encoding, threads: usize) -> (Encoded, Vec<u8>) {
    let mut out = Vec::new();
    let encoded = encode(toc, flats, encoding, threads, &mut out).unwrap();
    assert_eq!(
        (encoded.digest, encoded.size),
        (Digest::of(&out), out.len() as u64)
    );
    (encoded, out)
}

#[test]
fn the_output_is_the_same_on_any_number_of_threads_and_expands_to_the_tar() {
    let (_dir, flats) = flats();
    let toc = sample(&flats);
    let (plain, tar) = blob(&toc, &flats, Encoding::Uncompressed, 1);
    assert_eq!(plain.digest, plain.diff_id);
    for (encoding, compression) in [
        (Encoding::GZIP, Compression::Gzip),
        (Encoding::ZSTD, Compression::Zstd),
    ] {
        let (encoded, bytes) = blob(&toc, &flats, encoding, 1);
        assert!(encoded.size < plain.size * 2 / 3, "{encoding:?}");
        assert_eq!(encoded.diff_id, plain.diff_id);
        for threads in [0, 2, 3, 8] {
            assert!(
                blob(&toc, &flats, encoding, threads).1 == bytes,
                "{encoding:?} on {threads} threads"
            );
        }
        let mut expanded = Vec::new();
        decompressor(bytes.as_slice(), compression)
            .unwrap()
            .read_to_end(&mut expanded)
            .unwrap();
        assert!(expanded == tar, "{encoding:?}");
        assert_eq!(
            Compression::of_media_type(encoding.oci_media_type()),
            Some(compression)
        );
        assert_eq!(
            Compression::of_media_type(encoding.docker_media_type()),
            Some(compression)
        );
    }
}

/// When this fails, a compressor's output has changed: raise `ENCODER_VERSION` with it.
#[test]
fn the_encodings_are_those_of_version_2() {
    let (_dir, flats) = flats();
    let toc = layer(
        &[item("a", Put::File(b"hello, hello, hello".to_vec()))],
        &flats,
    );
    let encodings = [Encoding::Gzip { level: 6 }, Encoding::GZIP, Encoding::ZSTD];
    let digests = encodings.map(|e| blob(&toc, &flats, e, 2).0.digest.to_string());
    assert_eq!(ENCODER_VERSION, 2);
    assert_eq!(
        digests,
        [
            "sha256:0c6e611cd2dd6d7a645a05037a372e354e6d83e7d48082bcbc935a2baa3682fc",
            "sha256:063d62cbc772fb386ab72dc462d965383ee35844297ac5898a17a11aeb472b7e",
            "sha256:2171dda005348c60b169cfefb706b9f69f4e36897578881ab59963964b822c44"
        ]
    );
}

/// Files of some KiB whose bytes follow from their numbers; about 3 MB, so several blocks.
fn tree(flats: &FlatFiles, edit: Option<(usize, usize)>) -> Toc {
    let files: Vec<(String, Vec<u8>)> = (0..1200)
        .map(|number| {
            let size = match edit {
                Some((edited, size)) if edited == number => size,
                _ => 1000 + number * 7 % 3000,
            };
            let line = format!("file {number} of the tree, {} ", number * number);
            let content = line.bytes().cycle().take(size).collect();
            (format!("d{}/f{number}", number / 100), content)
        })
        .collect();
    let items: Vec<_> = files
        .iter()
        .map(|(path, content)| item(path, Put::File(content.clone())))
        .collect();
    layer(&items, flats)
}

/// When this fails, blocks are cut elsewhere: raise `ENCODER_VERSION` with it.
#[test]
fn blocks_end_where_they_do_in_version_2() {
    let (_dir, flats) = flats();
    let toc = tree(&flats, None);
    let compressed = compress(&toc, &flats, Encoding::GZIP, 2, None, &mut io::sink()).unwrap();
    let digest = blob(&toc, &flats, Encoding::GZIP, 2).0.digest;
    assert_eq!(compressed.blocks.len(), 4);
    assert_eq!(
        digest.to_string(),
        "sha256:9937525898e38e5e4760b6198e495d936cad89f1d5cf23a6baae67c4102ed92c"
    );
}

/// An earlier blob as what can be taken over, and how often something was.
struct Earlier {
    blob: Vec<u8>,
    blocks: std::collections::HashMap<Mark, Made>,
    taken: std::sync::atomic::AtomicUsize,
}

impl Earlier {
    fn of(toc: &Toc, flats: &FlatFiles, encoding: Encoding) -> Self {
        let mut blob = Vec::new();
        let made = compress(toc, flats, encoding, 2, None, &mut blob).unwrap();
        let end = made.blocks.last().map(|last| last.offset + last.length);
        assert_eq!(end, Some(blob.len() as u64));
        Self {
            blob,
            blocks: made.blocks.iter().map(|made| (made.mark, *made)).collect(),
            taken: Default::default(),
        }
    }
}

impl Reuse for Earlier {
    fn find(&self, mark: Mark) -> Option<Vec<u8>> {
        let made = self.blocks.get(&mark)?;
        self.taken.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let from = made.offset as usize;
        Some(self.blob[from..from + made.length as usize].to_vec())
    }
}

/// One file edited, shorter or much longer: all blocks but one or two are found, and the blob is the same as without.
#[test]
fn an_edit_leaves_the_other_blocks_as_they_were() {
    let (_dir, flats) = flats();
    let before = tree(&flats, None);
    for encoding in [Encoding::GZIP, Encoding::ZSTD] {
        let earlier = Earlier::of(&before, &flats, encoding);
        for edit in [(0, 10), (600, 1500), (1199, 9000)] {
            let after = tree(&flats, Some(edit));
            earlier.taken.store(0, std::sync::atomic::Ordering::SeqCst);
            let mut out = Vec::new();
            let made = compress(&after, &flats, encoding, 2, Some(&earlier), &mut out).unwrap();
            assert!(
                out == blob(&after, &flats, encoding, 1).1,
                "{encoding:?} {edit:?}"
            );
            let taken = earlier.taken.load(std::sync::atomic::Ordering::SeqCst);
            assert!(
                made.blocks.len() - taken <= 2,
                "{encoding:?} {edit:?}: {taken}"
            );
        }
    }
}

/// What is found is no better than the disk that it lies on, or the block that happens to have the same mark.
#[test]
fn what_does_not_expand_to_the_block_is_not_taken() {
    let (_dir, flats) = flats();
    let toc = tree(&flats, None);
    for encoding in [Encoding::GZIP, Encoding::ZSTD] {
        let right = blob(&toc, &flats, encoding, 1).1;
        for at in [0, 100, 20_000] {
            let mut earlier = Earlier::of(&toc, &flats, encoding);
            earlier.blob[at] ^= 1;
            let mut out = Vec::new();
            compress(&toc, &flats, encoding, 2, Some(&earlier), &mut out).unwrap();
            assert!(out == right, "{encoding:?} {at}");
        }
        let mut earlier = Earlier::of(&toc, &flats, encoding);
        let other = earlier
            .blocks
            .values()
            .copied()
            .max_by_key(|made| made.offset);
        for made in earlier.blocks.values_mut() {
            *made = other.unwrap();
        }
        let mut out = Vec::new();
        compress(&toc, &flats, encoding, 2, Some(&earlier), &mut out).unwrap();
        assert!(out == right, "{encoding:?}");
    }
}

struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self
            .0
            .checked_sub(bytes.len())
            .ok_or(io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn failures_end_it() {
    let (_dir, flats) = flats();
    let toc = sample(&flats);
    for (room, encoding) in [
        (0, Encoding::GZIP),
        (1_000_000, Encoding::GZIP),
        (0, Encoding::Uncompressed),
    ] {
        let failed = encode(&toc, &flats, encoding, 2, &mut Full(room));
        assert!(
            matches!(failed, Err(EncodeError::Write(e)) if e.kind() == io::ErrorKind::StorageFull)
        );
    }
    let level = encode(
        &toc,
        &flats,
        Encoding::Zstd { level: 23 },
        2,
        &mut io::sink(),
    )
    .unwrap_err();
    assert_eq!(
        level.to_string(),
        "compression level 23 is out of range for zstd (1 to 22)"
    );
    flats.remove(toc.flats[0]).unwrap();
    let gone = encode(&toc, &flats, Encoding::GZIP, 2, &mut io::sink());
    assert!(matches!(
        gone,
        Err(EncodeError::Tar(TarFormError::Read { .. }))
    ));
}
