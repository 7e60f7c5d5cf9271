//! Taking compression off a stream, and digests and bounds on streams.
//!
//! Pulling is `DigestReader` → [`decompressor`] → [`read_tar`](crate::read_tar): one pass in which the blob's digest
//! and the diff id are both computed.

use std::io::{self, BufReader, Cursor, Read};

use buildyard_model::Digest;
use sha2::{Digest as _, Sha256};

/// The most memory that the xz decoder may take for its dictionary, in bytes.
const XZ_MEMORY: u64 = 256 << 20;
/// zstd windows up to 2^27 bytes (128 MiB), which is what its command line takes by default.
const ZSTD_WINDOW_LOG: u32 = 27;

/// A compression that streams can be read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// None.
    None,
    /// gzip, one or many members.
    Gzip,
    /// zstd, one or many frames.
    Zstd,
    /// bzip2; of archives only.
    Bzip2,
    /// xz; of archives only.
    Xz,
}

impl Compression {
    /// The compression that a layer's media type says. `None` for types that are not layers.
    pub fn of_media_type(media_type: &str) -> Option<Self> {
        match media_type {
            "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar"
            | "application/vnd.docker.image.rootfs.diff.tar" => Some(Self::None),
            "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => Some(Self::Gzip),
            "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The compression whose magic number `start` begins with; [`Compression::None`] where there is none.
    pub fn sniff(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, 8, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            _ => Self::None,
        }
    }
}

/// Reads `reader` without its compression. Multiple gzip members and zstd frames read as one stream. The result is
/// not bounded: put a [`Limited`] around it, or read it with [`Limits`](crate::Limits).
pub fn decompressor<'a>(
    reader: impl Read + Send + 'a,
    compression: Compression,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    let buffered = BufReader::with_capacity(128 << 10, reader);
    Ok(match compression {
        Compression::None => Box::new(buffered),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(buffered)),
        Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(buffered)),
        Compression::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(buffered)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
        Compression::Xz => {
            let stream = liblzma::stream::Stream::new_stream_decoder(
                XZ_MEMORY,
                liblzma::stream::CONCATENATED,
            )?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(buffered, stream))
        }
    })
}

/// Like [`decompressor`], with the compression that the stream itself begins with.
pub fn sniffed_decompressor<'a>(
    mut reader: impl Read + Send + 'a,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut start = [0; 6];
    let got = crate::flat::read_full(&mut reader, &mut start)?;
    let start = start[..got].to_vec();
    let compression = Compression::sniff(&start);
    decompressor(Cursor::new(start).chain(reader), compression)
}

/// Hashes and counts what is read through it.
pub struct DigestReader<R> {
    reader: R,
    hasher: Sha256,
    size: u64,
}

impl<R: Read> DigestReader<R> {
    /// Reads from `reader`.
    pub fn new(reader: R) -> Self {
        Self {
            reader,
            hasher: Sha256::new(),
            size: 0,
        }
    }

    /// Reads what is left (a decoder may stop before the end), and gives the digest and length of everything.
    pub fn finish(mut self) -> io::Result<(Digest, u64)> {
        io::copy(&mut self, &mut io::sink())?;
        Ok((Digest::from_bytes(self.hasher.finalize().into()), self.size))
    }
}

impl<R: Read> Read for DigestReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let got = self.reader.read(buf)?;
        self.hasher.update(&buf[..got]);
        self.size += got as u64;
        Ok(got)
    }
}

/// Fails once more than a number of bytes was read through it: a bound on what compressed data may expand to.
pub struct Limited<R> {
    reader: R,
    left: u64,
    limit: u64,
}

/// What [`Limited`] fails with, inside an [`io::Error`] of kind `FileTooLarge`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("more than the {0} bytes that are allowed")]
pub struct TooManyBytes(
    /// How many were allowed.
    pub u64,
);

impl<R: Read> Limited<R> {
    /// Lets `limit` bytes through.
    pub fn new(reader: R, limit: u64) -> Self {
        Self {
            reader,
            left: limit,
            limit,
        }
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let got = self.reader.read(buf)?;
        match self.left.checked_sub(got as u64) {
            Some(left) => self.left = left,
            None => {
                return Err(io::Error::new(
                    io::ErrorKind::FileTooLarge,
                    TooManyBytes(self.limit),
                ));
            }
        }
        Ok(got)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_covers_what_the_decoder_leaves() {
        let blob = [
            &zstd::encode_all(&b"hello"[..], 1).unwrap()[..],
            &[0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 7],
        ]
        .concat();
        let mut counted = DigestReader::new(blob.as_slice());
        let mut five = [0; 5];
        decompressor(&mut counted, Compression::Zstd)
            .unwrap()
            .read_exact(&mut five)
            .unwrap();
        assert_eq!(&five, b"hello");
        assert_eq!(
            counted.finish().unwrap(),
            (Digest::of(&blob), blob.len() as u64)
        );
    }

    #[test]
    fn magic_numbers() {
        let check = |start: &[u8], wanted: Compression| {
            assert_eq!(Compression::sniff(start), wanted, "{start:?}")
        };
        check(b"", Compression::None);
        check(b"\x1f\x8b\x08", Compression::Gzip);
        check(b"\x28\xb5\x2f\xfd\0", Compression::Zstd);
        check(b"\x51\x2a\x4d\x18\0", Compression::Zstd);
        check(b"BZh9", Compression::Bzip2);
        check(b"BZh0", Compression::None);
        check(b"\xfd7zXZ\0", Compression::Xz);
    }

    #[test]
    fn a_limit_lets_exactly_so_many_bytes_through() {
        let read = |limit| io::copy(&mut Limited::new(&[0; 100][..], limit), &mut io::sink());
        assert_eq!(read(100).unwrap(), 100);
        let error = read(99).unwrap_err();
        assert_eq!(
            error.get_ref().unwrap().downcast_ref(),
            Some(&TooManyBytes(99))
        );
    }

    #[test]
    fn cut_streams_are_errors() {
        let mut gzip = Vec::new();
        flate2::read::GzEncoder::new(&[7; 1000][..], flate2::Compression::fast())
            .read_to_end(&mut gzip)
            .unwrap();
        let zstd = zstd::encode_all(&[7; 1000][..], 1).unwrap();
        for (bytes, compression) in [(gzip, Compression::Gzip), (zstd, Compression::Zstd)] {
            let cut = &bytes[..bytes.len() - 1];
            let read = io::copy(
                &mut decompressor(cut, compression).unwrap(),
                &mut io::sink(),
            );
            assert!(read.is_err(), "{compression:?}");
        }
    }
}
