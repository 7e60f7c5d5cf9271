//! How much of a disk may be taken: `50G`, `512MiB`, `60%`.

use std::fmt;
use std::io;
use std::path::Path;
use std::str::FromStr;

/// An upper bound for what is kept in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SizeLimit {
    /// So many bytes.
    Bytes(u64),
    /// So many hundredths of the file system that the directory lies on.
    Percent(u8),
}

/// A text that is no [`SizeLimit`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no size; write it like 50G, 512MiB or 60%")]
pub struct BadSizeLimit(String);

impl SizeLimit {
    /// The limit in bytes for the directory `path`, which must exist.
    ///
    /// # Errors
    /// The file system's size could not be asked for.
    pub fn of(self, path: &Path) -> io::Result<u64> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Percent(percent) => Ok(crate::disk_size(path)? / 100 * u64::from(percent)),
        }
    }
}

/// The bytes in one of a unit's, which count in steps of 1024 whether or not they are written with an `i`.
fn unit(text: &str) -> Option<u64> {
    let shift = match text.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    Some(1 << shift)
}

impl FromStr for SizeLimit {
    type Err = BadSizeLimit;

    fn from_str(text: &str) -> Result<Self, BadSizeLimit> {
        let bad = || BadSizeLimit(text.to_owned());
        let end = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (number, rest) = text.split_at(end);
        let number: u64 = number.parse().map_err(|_| bad())?;
        if rest == "%" {
            return match u8::try_from(number) {
                Ok(percent @ 1..=100) => Ok(Self::Percent(percent)),
                _ => Err(bad()),
            };
        }
        let bytes = unit(rest.trim_start()).and_then(|unit| number.checked_mul(unit));
        bytes
            .filter(|bytes| *bytes > 0)
            .map(Self::Bytes)
            .ok_or_else(bad)
    }
}

impl fmt::Display for SizeLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{bytes}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_all_their_forms() {
        let check = |text: &str, expected: Option<SizeLimit>| {
            assert_eq!(text.parse::<SizeLimit>().ok(), expected, "{text:?}");
        };
        check("1", Some(SizeLimit::Bytes(1)));
        check("50G", Some(SizeLimit::Bytes(50 << 30)));
        check("50 GiB", Some(SizeLimit::Bytes(50 << 30)));
        check("512mb", Some(SizeLimit::Bytes(512 << 20)));
        check("80%", Some(SizeLimit::Percent(80)));
        for bad in [
            "",
            "0",
            "0%",
            "101%",
            "-1",
            "G",
            "1.5G",
            "12X",
            "99999999999T",
            "%",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn a_share_is_one_of_the_file_system() {
        let root = Path::new("/");
        let whole = SizeLimit::Percent(100).of(root).expect("it has a size");
        let half = SizeLimit::Percent(50).of(root).expect("it has a size");
        assert!(half > 0 && half.abs_diff(whole / 2) <= 100);
        assert_eq!(SizeLimit::Bytes(7).of(root).expect("not asked for"), 7);
    }
}
