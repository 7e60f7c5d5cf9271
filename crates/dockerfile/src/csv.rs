//! One line of comma separated values (RFC 4180), as `--mount`, `--add-host` and `--ulimit` have them.

/// The fields of `line`. A field may stand in double quotes, in which `""` is a quote.
///
/// # Errors
/// Says which quote is wrong.
pub(crate) fn fields(line: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(line, quoted)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                if rest[..end].contains('"') {
                    return Err(format!(
                        "bare \" in the field {:?}: quote the whole field",
                        &rest[..end]
                    ));
                }
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None => return Ok(fields),
        }
    }
}

fn quoted_field<'a>(line: &str, mut rest: &'a str) -> Result<(String, &'a str), String> {
    let mut field = String::new();
    loop {
        let Some(end) = rest.find('"') else {
            return Err(format!("a quote in {line:?} is not closed"));
        };
        field.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(more) => {
                field.push('"');
                rest = more;
            }
            None if rest.is_empty() || rest.starts_with(',') => return Ok((field, rest)),
            None => return Err(format!("text behind a closing quote in {line:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_split() {
        let check =
            |line, expected: &[&str]| assert_eq!(fields(line).expect(line), expected, "{line:?}");
        check("a,b=c,", &["a", "b=c", ""]);
        check("\"a,b\",\"c\"\"d\"", &["a,b", "c\"d"]);
        check("", &[""]);
        for wrong in ["a\"b", "\"a", "\"a\"b"] {
            assert!(fields(wrong).is_err(), "{wrong:?}");
        }
    }
}
