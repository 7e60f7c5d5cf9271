//! What a file sync call asks for, from its metadata.

use std::str::FromStr;

use tonic::Status;
use tonic::metadata::MetadataMap;

/// More patterns than this are no `.dockerignore`.
const MAX_VALUES: usize = 100_000;

/// A call's parameters.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Call {
    /// The directory's name.
    pub(super) dir: String,
    /// Send only what matches; empty: everything.
    pub(super) include: Vec<String>,
    /// Send nothing that matches.
    pub(super) exclude: Vec<String>,
    /// Send these paths and what their symlinks lead to.
    pub(super) follow: Vec<String>,
}

impl Call {
    /// Reads the metadata.
    pub(super) fn from_metadata(metadata: &MetadataMap) -> Result<Self, Status> {
        Ok(Self {
            dir: values(metadata, "dir-name")?
                .into_iter()
                .next()
                .unwrap_or_default(),
            include: values(metadata, "include-patterns")?,
            exclude: values(metadata, "exclude-patterns")?,
            follow: values(metadata, "followpaths")?,
        })
    }
}

fn values(metadata: &MetadataMap, key: &str) -> Result<Vec<String>, Status> {
    let refuse = || Status::invalid_argument(format!("the metadata {key} is not UTF-8"));
    let encoded = metadata
        .get(format!("{key}-encoded").as_str())
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| bool::from_str(value).unwrap_or(value == "1" || value == "t"));
    let mut found = Vec::new();
    for value in metadata.get_all(key) {
        if found.len() == MAX_VALUES {
            return Err(Status::resource_exhausted(format!(
                "more than {MAX_VALUES} values of {key}"
            )));
        }
        let text = std::str::from_utf8(value.as_encoded_bytes()).map_err(|_| refuse())?;
        found.push(if encoded {
            unescape(text).ok_or_else(refuse)?
        } else {
            text.to_owned()
        });
    }
    Ok(found)
}

/// Go's `url.QueryUnescape`; a malformed escape stays as it is.
fn unescape(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = bytes.get(at + 1..at + 3).and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 16).ok()
        });
        match (bytes[at], escaped) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
                continue;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_values_are_read() {
        let mut metadata = MetadataMap::new();
        metadata.insert("dir-name", "context".parse().unwrap());
        metadata.append("exclude-patterns", "%C3%A4+b%2Fc".parse().unwrap());
        metadata.append("exclude-patterns", "plain".parse().unwrap());
        metadata.insert("exclude-patterns-encoded", "1".parse().unwrap());
        metadata.append("followpaths", "a%20b".parse().unwrap());
        let call = Call::from_metadata(&metadata).unwrap();
        assert_eq!(call.dir, "context");
        assert_eq!(call.exclude, ["ä b/c", "plain"]);
        assert_eq!(call.follow, ["a%20b"]);
        assert!(call.include.is_empty());
    }
}
