//! The modes of `--chmod`: octal, or symbolic as of chmod(1).

/// A mode as the operation carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mode {
    /// Permission bits.
    Octal(u32),
    /// A symbolic mode, checked.
    Symbolic(String),
}

/// Reads a mode.
///
/// # Errors
/// Says what a mode must look like.
pub(super) fn parse(text: &str) -> Result<Mode, String> {
    let refuse = || {
        Err(format!(
            "invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"
        ))
    };
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return match u32::from_str_radix(text, 8) {
            Ok(mode) if mode <= 0o7777 => Ok(Mode::Octal(mode)),
            _ => refuse(),
        };
    }
    match text.split(',').all(is_clause) {
        true => Ok(Mode::Symbolic(text.to_owned())),
        false => Err(format!(
            "invalid chmod parameter: '{text}'. want octal (0755) or symbolic (u=rwX,go=rX)"
        )),
    }
}

/// `[ugoa…][+-=][rwxXst…|u|g|o]`, the part behind the letters any number of times.
fn is_clause(clause: &str) -> bool {
    let mut rest = clause.trim_start_matches(['u', 'g', 'o', 'a']);
    let mut actions = 0;
    while let Some(after) = rest.strip_prefix(['+', '-', '=']) {
        actions += 1;
        rest = match after.strip_prefix(['u', 'g', 'o']) {
            Some(copied) => copied,
            None => after.trim_start_matches(['r', 'w', 'x', 'X', 's', 't']),
        };
    }
    actions > 0 && rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_read() {
        assert_eq!(parse("755"), Ok(Mode::Octal(0o755)));
        assert_eq!(parse("04755"), Ok(Mode::Octal(0o4755)));
        for text in ["u=rwX,go=rX", "+x", "a-w", "u+s,+t", "g=u", "u=", "u+r-w"] {
            assert_eq!(parse(text), Ok(Mode::Symbolic(text.to_owned())), "{text}");
        }
        for text in [
            "", "888", "17777", "u", "u+y", "rwx", "u=r,", "0x1ff", "u=ug",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
