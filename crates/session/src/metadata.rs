//! Request headers of the file services.
//!
//! Values that are not plain ASCII are sent in URL query encoding, and a second header `KEY-encoded: 1` says so
//! (`encodeStringForHeader` in BuildKit's `session/filesync`).

use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};

/// Adds the values under `key`, encoded if one of them needs it. No values, no header.
pub(crate) fn append(metadata: &mut MetadataMap, key: &'static str, values: &[String]) {
    let plain = |value: &String| {
        value.bytes().all(|byte| (0x20..0x7f).contains(&byte)) && value.trim() == value
    };
    let encode = !values.iter().all(plain);
    for value in values {
        let text = if encode {
            query_escape(value)
        } else {
            value.clone()
        };
        if let Ok(value) = AsciiMetadataValue::try_from(text) {
            metadata.append(key, value);
        }
    }
    if encode && let Ok(flag) = AsciiMetadataKey::from_bytes(format!("{key}-encoded").as_bytes()) {
        metadata.insert(flag, AsciiMetadataValue::from_static("1"));
    }
}

/// Go's `url.QueryEscape`: letters, digits and `-_.~` stay, a space becomes `+`, the rest `%XX`.
fn query_escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(byte as char)
            }
            b' ' => out.push('+'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(values: &[&str], expected: &[&str], flag: Option<&str>) {
        let mut metadata = MetadataMap::new();
        let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
        append(&mut metadata, "include-patterns", &values);
        let sent: Vec<_> = metadata
            .get_all("include-patterns")
            .iter()
            .map(|value| value.to_str().unwrap())
            .collect();
        assert_eq!(sent, expected);
        assert_eq!(
            metadata
                .get("include-patterns-encoded")
                .map(|value| value.to_str().unwrap()),
            flag
        );
    }

    #[test]
    fn plain_values_go_as_they_are_and_others_are_encoded_together() {
        check(&[], &[], None);
        check(&["src/**", "!a b%"], &["src/**", "!a b%"], None);
        check(&["größe", "a b"], &["gr%C3%B6%C3%9Fe", "a+b"], Some("1"));
        check(&[" padded"], &["+padded"], Some("1"));
        check(&["line\nbreak"], &["line%0Abreak"], Some("1"));
    }
}
