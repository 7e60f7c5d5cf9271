//! Values to columns and back.

use std::collections::HashMap;
use std::fmt::Display;
use std::hash::Hash;
use std::str::FromStr;

use buildyard_model::Digest;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::StoreError;

/// Names what a failed query was for.
pub(super) trait During<T> {
    fn during(self, doing: &'static str) -> Result<T, StoreError>;
}

impl<T> During<T> for Result<T, sqlx::Error> {
    fn during(self, doing: &'static str) -> Result<T, StoreError> {
        self.map_err(|error| match &error {
            // SQLITE_FULL, and SQLITE_IOERR_WRITE with no more room behind it, end alike for whoever reads this.
            sqlx::Error::Database(inner) if inner.code().as_deref() == Some("13") => {
                StoreError::Full { doing }
            }
            _ => StoreError::Database {
                doing,
                source: Box::new(error),
            },
        })
    }
}

/// The value is not what this program writes into `column`.
pub(super) fn corrupt(column: &'static str, value: impl Display) -> StoreError {
    let value: String = value.to_string().chars().take(100).collect();
    StoreError::Corrupt {
        doing: "reading a row",
        what: format!("{value:?} in {column}"),
    }
}

/// A digest's 32 bytes.
pub(super) fn digest(column: &'static str, bytes: &[u8]) -> Result<Digest, StoreError> {
    bytes32(column, bytes).map(Digest::from_bytes)
}

/// The 32 bytes of an id.
pub(super) fn bytes32(column: &'static str, bytes: &[u8]) -> Result<[u8; 32], StoreError> {
    bytes
        .try_into()
        .map_err(|_| corrupt(column, format!("{} bytes", bytes.len())))
}

/// A text that a type parses.
pub(super) fn parse<T: FromStr>(column: &'static str, text: &str) -> Result<T, StoreError> {
    text.parse().map_err(|_| corrupt(column, text))
}

/// A JSON column.
pub(super) fn from_json<T: DeserializeOwned>(
    column: &'static str,
    text: &str,
) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|_| corrupt(column, text))
}

/// The JSON of a value that consists of texts, numbers, lists and maps of texts: these always have one.
pub(super) fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("lists and maps of texts always have a JSON form")
}

/// Sizes and counts as SQLite has them. Above 2^63 there are none.
pub(super) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Sizes and counts back; a negative one was never written.
pub(super) fn uint(column: &'static str, value: i64) -> Result<u64, StoreError> {
    u64::try_from(value).map_err(|_| corrupt(column, value))
}

/// A list of 32-byte ids as the JSON that `unhex(value)` over `json_each(?)` reads: one bound value for any number.
pub(super) fn hex_list<'a>(ids: impl IntoIterator<Item = &'a [u8; 32]>) -> String {
    let mut list = String::from("[");
    for id in ids {
        list.push_str(if list.len() > 1 { ",\"" } else { "\"" });
        list.push_str(&Digest::from_bytes(*id).hex());
        list.push('"');
    }
    list.push(']');
    list
}

/// What was found, in the order in which it was asked for.
pub(super) fn in_order<K: Eq + Hash, V: Clone>(
    asked: impl IntoIterator<Item = K>,
    found: &HashMap<K, V>,
) -> Vec<Option<V>> {
    asked
        .into_iter()
        .map(|key| found.get(&key).cloned())
        .collect()
}

/// A text cut to at most `cap` bytes, at a character.
pub(super) fn capped(text: &str, cap: usize) -> &str {
    &text[..text.floor_char_boundary(cap)]
}
