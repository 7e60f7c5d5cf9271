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
fn the_encodings_are_those_of_version_1() {
    let (_dir, flats) = flats();
    let toc = layer(
        &[item("a", Put::File(b"hello, hello, hello".to_vec()))],
        &flats,
    );
    let encodings = [Encoding::Gzip { level: 6 }, Encoding::GZIP, Encoding::ZSTD];
    let digests = encodings.map(|e| blob(&toc, &flats, e, 2).0.digest.to_string());
    assert_eq!(ENCODER_VERSION, 1);
    assert_eq!(
        digests,
        [
            "sha256:0c6e611cd2dd6d7a645a05037a372e354e6d83e7d48082bcbc935a2baa3682fc",
            "sha256:063d62cbc772fb386ab72dc462d965383ee35844297ac5898a17a11aeb472b7e",
            "sha256:2171dda005348c60b169cfefb706b9f69f4e36897578881ab59963964b822c44"
        ]
    );
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
