//! PAX records: `<length> <key>=<value>\n`, where the length counts the whole record in decimal.

use super::Member;
use super::header::SparseHints;
use crate::Time;

const XATTR: &[u8] = b"SCHILY.xattr.";

/// Applies the records of one extended header.
pub(super) fn apply(
    mut records: &[u8],
    member: &mut Member,
    hints: &mut SparseHints,
) -> Result<(), &'static str> {
    while !records.is_empty() {
        let (key, value, rest) = split_record(records).ok_or("a PAX record is malformed")?;
        apply_record(key, value, member, hints)?;
        records = rest;
    }
    Ok(())
}

/// The first record's key and value, and what follows it.
fn split_record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = records.iter().take(20).position(|b| *b == b' ')?;
    let length: usize = decimal(&records[..space])?.try_into().ok()?;
    if length <= space || length > records.len() {
        return None;
    }
    let (record, rest) = records.split_at(length);
    let record = record[space + 1..].strip_suffix(b"\n")?;
    let equals = record.iter().position(|b| *b == b'=')?;
    Some((&record[..equals], &record[equals + 1..], rest))
}

fn apply_record(
    key: &[u8],
    value: &[u8],
    member: &mut Member,
    hints: &mut SparseHints,
) -> Result<(), &'static str> {
    if let Some(name) = key.strip_prefix(XATTR) {
        member.xattrs.insert(name.to_vec(), value.to_vec());
        return Ok(());
    }
    // An empty value takes back what a global header set; we use none of those.
    if value.is_empty() {
        return Ok(());
    }
    let number = || decimal(value).ok_or("a PAX record is not a number");
    match key {
        b"path" => member.path = value.to_vec(),
        b"linkpath" => member.link = value.to_vec(),
        b"size" => member.stored = number()?,
        b"uid" => member.uid = number()?,
        b"gid" => member.gid = number()?,
        b"mtime" => member.mtime = time(value).ok_or("a PAX time is malformed")?,
        b"GNU.sparse.name" => hints.name = Some(value.to_vec()),
        b"GNU.sparse.size" | b"GNU.sparse.realsize" => hints.size = Some(number()?),
        b"GNU.sparse.major" => hints.in_data = number()? == 1,
        b"GNU.sparse.offset" => hints.chunks.push((number()?, 0)),
        b"GNU.sparse.numbytes" => {
            hints
                .chunks
                .last_mut()
                .ok_or("a PAX sparse map is malformed")?
                .1 = number()?
        }
        b"GNU.sparse.map" => hints.chunks = map(value).ok_or("a PAX sparse map is malformed")?,
        _ => {}
    }
    Ok(())
}

fn map(value: &[u8]) -> Option<Vec<(u64, u64)>> {
    let numbers: Vec<u64> = value
        .split(|b| *b == b',')
        .map(decimal)
        .collect::<Option<_>>()?;
    let pairs = numbers.chunks_exact(2);
    pairs
        .remainder()
        .is_empty()
        .then(|| pairs.map(|p| (p[0], p[1])).collect())
}

pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok()?;
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())?
}

/// `[-]seconds[.fraction]`; digits beyond nanoseconds are cut off.
fn time(value: &[u8]) -> Option<Time> {
    let (negative, value) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let mut parts = value.splitn(2, |b| *b == b'.');
    let seconds = i64::try_from(decimal(parts.next()?)?).ok()?;
    let fraction = parts.next().unwrap_or_default();
    decimal(if fraction.is_empty() {
        b"0"
    } else {
        fraction.get(..fraction.len().min(19))?
    })?;
    let digits = fraction.iter().chain(std::iter::repeat(&b'0')).take(9);
    let nanos = digits.fold(0, |n, d| n * 10 + u32::from(d - b'0'));
    Some(match (negative, nanos) {
        (false, nanos) => Time { seconds, nanos },
        (true, 0) => Time {
            seconds: -seconds,
            nanos: 0,
        },
        (true, nanos) => Time {
            seconds: -seconds - 1,
            nanos: 1_000_000_000 - nanos,
        },
    })
}

/// Appends one record.
pub(crate) fn push_record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    // The length counts its own digits.
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_have_signs_and_fractions() {
        let check = |text: &str, wanted: Option<(i64, u32)>| {
            assert_eq!(
                time(text.as_bytes()).map(|t| (t.seconds, t.nanos)),
                wanted,
                "{text}"
            );
        };
        check("12", Some((12, 0)));
        check("12.5", Some((12, 500_000_000)));
        check("12.0000000019", Some((12, 1)));
        check("-1", Some((-1, 0)));
        check("-1.25", Some((-2, 750_000_000)));
        check("-0.25", Some((-1, 750_000_000)));
        check("1.x", None);
        check("", None);
    }

    proptest! {
        #[test]
        fn records_hold_any_bytes(value in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut records = Vec::new();
            push_record(&mut records, b"SCHILY.xattr.user.a", &value);
            push_record(&mut records, b"path", b"x");
            let mut member = Member::default();
            apply(&records, &mut member, &mut SparseHints::default()).unwrap();
            prop_assert_eq!(&member.path, b"x");
            prop_assert_eq!(&member.xattrs[b"user.a".as_slice()], &value);
        }
    }
}
