//! Lists as Go prints them: that is how history entries look.

/// `%v` of a list: `[a b]`.
pub(super) fn list(items: &[String]) -> String {
    format!("[{}]", items.join(" "))
}

/// `%q` of a list: `["a" "b"]`.
pub(super) fn quoted_list(items: &[String]) -> String {
    let quoted: Vec<String> = items.iter().map(|item| quote(item)).collect();
    format!("[{}]", quoted.join(" "))
}

/// `%q` of a number, which is taken for a character: 4 gives `'\x04'`.
pub(super) fn quoted_number(number: i64) -> String {
    let c = u32::try_from(number).ok().and_then(char::from_u32);
    quote_in(
        '\'',
        c.unwrap_or(char::REPLACEMENT_CHARACTER)
            .encode_utf8(&mut [0; 4]),
    )
}

/// `strconv.Quote`.
fn quote(text: &str) -> String {
    quote_in('"', text)
}

fn quote_in(mark: char, text: &str) -> String {
    let mut quoted = String::from(mark);
    for c in text.chars() {
        match c {
            c if c == mark => {
                quoted.push('\\');
                quoted.push(mark);
            }
            '\\' => quoted.push_str("\\\\"),
            '\x07' => quoted.push_str("\\a"),
            '\x08' => quoted.push_str("\\b"),
            '\x0c' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\x0b' => quoted.push_str("\\v"),
            c if is_printable(c) => quoted.push(c),
            c if (c as u32) < 0x80 => quoted.push_str(&format!("\\x{:02x}", c as u32)),
            c if (c as u32) < 0x10000 => quoted.push_str(&format!("\\u{:04x}", c as u32)),
            c => quoted.push_str(&format!("\\U{:08x}", c as u32)),
        }
    }
    quoted.push(mark);
    quoted
}

/// Go's `strconv.IsPrint`, without its list of code points that are not assigned: no control, format or private
/// characters, and no blank but the space.
fn is_printable(c: char) -> bool {
    let hidden = matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        | '\u{e000}'..='\u{f8ff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{10ffff}');
    c == ' ' || !(c.is_control() || c.is_whitespace() || hidden)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted_as_go_does() {
        let check = |text: &str, expected: &str| assert_eq!(quote(text), expected);
        check("a b", "\"a b\"");
        check("\"\\\n\t\x07", "\"\\\"\\\\\\n\\t\\a\"");
        check(
            "\x01é世\u{a0}\u{200b}😀\x7f",
            "\"\\x01é世\\u00a0\\u200b😀\\x7f\"",
        );
        assert_eq!(quoted_number(4), "'\\x04'");
        assert_eq!(quoted_number(39), "'\\''");
        assert_eq!(quoted_number(i64::MAX), "'\u{fffd}'");
        assert_eq!(quoted_list(&["a".into(), String::new()]), "[\"a\" \"\"]");
        assert_eq!(
            (list(&[]), list(&["a".into(), "b".into()])),
            ("[]".into(), "[a b]".into())
        );
    }
}
