//! Flag values of the form `type=local,dest=out`: comma-separated fields, quoted as in RFC 4180.

use std::collections::BTreeMap;

/// Why a value cannot be split into fields.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldsError {
    /// A quoted field has no closing quote.
    #[error("{0:?} has a quote that is not closed")]
    OpenQuote(String),
    /// Something follows a closing quote.
    #[error("{0:?} has text behind a closing quote (a field is quoted as a whole: \"dest=a,b\")")]
    BehindQuote(String),
    /// A field is not `key=value`.
    #[error("{field:?} in {value:?} is not of the form key=value")]
    NotKeyValue {
        /// The field.
        field: String,
        /// The whole value.
        value: String,
    },
    /// A key is given twice.
    #[error("{key:?} is given twice in {value:?}")]
    Twice {
        /// The key.
        key: String,
        /// The whole value.
        value: String,
    },
}

/// Splits at commas; a field that begins with `"` ends at the next lone `"`, and `""` inside it is one `"`.
///
/// # Errors
/// A quote that is not closed, or text behind one that is.
pub fn fields(value: &str) -> Result<Vec<String>, FieldsError> {
    let mut fields = Vec::new();
    let mut rest = value;
    loop {
        let (field, behind) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted, value)?,
            None => match rest.split_once(',') {
                Some((field, behind)) => (field.to_owned(), Some(behind)),
                None => (rest.to_owned(), None),
            },
        };
        fields.push(field);
        match behind {
            Some(behind) => rest = behind,
            None => return Ok(fields),
        }
    }
}

fn quoted_field<'a>(
    quoted: &'a str,
    value: &str,
) -> Result<(String, Option<&'a str>), FieldsError> {
    let mut field = String::new();
    let mut rest = quoted;
    loop {
        let (text, behind) = rest
            .split_once('"')
            .ok_or_else(|| FieldsError::OpenQuote(value.to_owned()))?;
        field.push_str(text);
        if let Some(behind) = behind.strip_prefix('"') {
            field.push('"');
            rest = behind;
        } else if behind.is_empty() {
            return Ok((field, None));
        } else if let Some(behind) = behind.strip_prefix(',') {
            return Ok((field, Some(behind)));
        } else {
            return Err(FieldsError::BehindQuote(value.to_owned()));
        }
    }
}

/// The fields as `key=value` pairs; keys are lowercased and trimmed.
///
/// # Errors
/// What [`fields`] refuses, a field without `=`, a key given twice.
pub fn key_values(value: &str) -> Result<BTreeMap<String, String>, FieldsError> {
    let mut pairs = BTreeMap::new();
    for field in fields(value)? {
        let Some((key, text)) = field.split_once('=') else {
            return Err(FieldsError::NotKeyValue {
                field,
                value: value.to_owned(),
            });
        };
        let key = key.trim().to_ascii_lowercase();
        if pairs.insert(key.clone(), text.to_owned()).is_some() {
            return Err(FieldsError::Twice {
                key,
                value: value.to_owned(),
            });
        }
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_split_at_commas_outside_quotes() {
        let check = |value: &str, expected: &[&str]| {
            assert_eq!(fields(value).unwrap(), expected, "{value}")
        };
        check("a", &["a"]);
        check("type=local,dest=out", &["type=local", "dest=out"]);
        check("type=image,\"name=a,b\"", &["type=image", "name=a,b"]);
        check("\"say \"\"hi\"\"\",b", &["say \"hi\"", "b"]);
        check("a,", &["a", ""]);
    }

    #[test]
    fn broken_values_are_refused() {
        assert_eq!(fields("\"a"), Err(FieldsError::OpenQuote("\"a".into())));
        assert_eq!(
            fields("\"a\"b"),
            Err(FieldsError::BehindQuote("\"a\"b".into()))
        );
        assert!(matches!(
            key_values("type=tar,x"),
            Err(FieldsError::NotKeyValue { .. })
        ));
        assert!(matches!(
            key_values("a=1,A=2"),
            Err(FieldsError::Twice { .. })
        ));
    }
}
