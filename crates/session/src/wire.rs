//! fsutil's messages (`types/wire.proto`, `types/stat.proto` of tonistiigi/fsutil), and BuildKit's message of bytes.
//!
//! Declared here, not taken from the generated crate: paths there are `String`s, and a decoder refuses a whole
//! stream for one file name that is not UTF-8, which Go's clients do send; and data here is [`Bytes`], not copied.

use std::collections::HashMap;

use buildyard_layer::Time;
use bytes::Bytes;

/// A part of a file sent as a stream: `moby.filesync.v1.BytesMessage`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Chunk {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) data: Bytes,
}

/// One message of the file protocol.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Packet {
    #[prost(enumeration = "PacketType", tag = "1")]
    pub(crate) r#type: i32,
    #[prost(message, optional, tag = "2")]
    pub(crate) stat: Option<Stat>,
    #[prost(uint32, tag = "3")]
    pub(crate) id: u32,
    #[prost(bytes = "bytes", tag = "4")]
    pub(crate) data: Bytes,
}

/// What a packet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum PacketType {
    /// The next path; without a stat: there are no more.
    Stat = 0,
    /// Asks for the content of the path with this number.
    Req = 1,
    /// A piece of a content; an empty piece ends it.
    Data = 2,
    /// All is said.
    Fin = 3,
    /// The sender gives up; the data is its message.
    Err = 4,
}

/// A path and its metadata.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Stat {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) path: Vec<u8>,
    /// Go's `os.FileMode` bits.
    #[prost(uint32, tag = "2")]
    pub(crate) mode: u32,
    #[prost(uint32, tag = "3")]
    pub(crate) uid: u32,
    #[prost(uint32, tag = "4")]
    pub(crate) gid: u32,
    #[prost(int64, tag = "5")]
    pub(crate) size: i64,
    /// Nanoseconds since the epoch.
    #[prost(int64, tag = "6")]
    pub(crate) mod_time: i64,
    #[prost(bytes = "vec", tag = "7")]
    pub(crate) linkname: Vec<u8>,
    #[prost(int64, tag = "8")]
    pub(crate) devmajor: i64,
    #[prost(int64, tag = "9")]
    pub(crate) devminor: i64,
    #[prost(map = "string, bytes", tag = "10")]
    pub(crate) xattrs: HashMap<String, Vec<u8>>,
}

impl Packet {
    pub(crate) fn of(r#type: PacketType) -> Self {
        Self {
            r#type: r#type as i32,
            ..Default::default()
        }
    }

    pub(crate) fn request(id: u32) -> Self {
        Self {
            id,
            ..Self::of(PacketType::Req)
        }
    }

    pub(crate) fn data(id: u32, data: Bytes) -> Self {
        Self {
            id,
            data,
            ..Self::of(PacketType::Data)
        }
    }

    pub(crate) fn stat(stat: Option<Stat>) -> Self {
        Self {
            stat,
            ..Self::of(PacketType::Stat)
        }
    }

    pub(crate) fn error(message: &str) -> Self {
        Self {
            data: Bytes::copy_from_slice(message.as_bytes()),
            ..Self::of(PacketType::Err)
        }
    }
}

/// Nanoseconds since the epoch as the TOC's time.
pub(crate) fn time(nanoseconds: i64) -> Time {
    const SECOND: i64 = 1_000_000_000;
    let nanos =
        u32::try_from(nanoseconds.rem_euclid(SECOND)).expect("a remainder of a second fits");
    Time {
        seconds: nanoseconds.div_euclid(SECOND),
        nanos,
    }
}

/// The TOC's time as nanoseconds; times that don't fit (before 1677, after 2262) become the nearest that does.
pub(crate) fn nanoseconds(time: Time) -> i64 {
    time.seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(i64::from(time.nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_the_epoch_keep_positive_nanos() {
        for (nanos, seconds, rest) in [
            (0, 0, 0),
            (1_500_000_000, 1, 500_000_000),
            (-1, -1, 999_999_999),
        ] {
            assert_eq!(
                time(nanos),
                Time {
                    seconds,
                    nanos: rest
                }
            );
            assert_eq!(nanoseconds(time(nanos)), nanos);
        }
    }
}
