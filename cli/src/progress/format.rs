//! Numbers as BuildKit's plain progress writes them.

/// `0.3s`.
pub(super) fn seconds(nanos: i64) -> String {
    format!("{:.1}s", nanos as f64 / 1e9)
}

/// The time in front of an output line, with the precision that its size leaves, and a space.
pub(super) fn log_time(nanos: i64) -> String {
    let seconds = nanos.max(0) as f64 / 1e9;
    let precision = match seconds {
        s if s < 10.0 => 3,
        s if s < 100.0 => 2,
        _ => 1,
    };
    format!("{seconds:.precision$} ")
}

/// `31B`, `1.50kB`, `2.75MB`: decimal units.
pub(super) fn bytes(count: i64) -> String {
    const UNITS: [(&str, f64); 4] = [("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)];
    for (unit, size) in UNITS {
        if count as f64 >= size {
            return format!("{:.2}{unit}", count as f64 / size);
        }
    }
    format!("{count}B")
}

/// One line for a terminal: control characters out, cut to `width` columns.
pub(super) fn fit(text: &str, width: usize) -> String {
    let mut out = String::new();
    let mut columns = 0;
    for c in visible(text) {
        columns += width_of(c);
        if columns > width {
            out.pop();
            out.push('…');
            break;
        }
        out.push(c);
    }
    out
}

/// The columns of a character. In doubt two: a line that is too short does no harm.
pub(super) fn width_of(c: char) -> usize {
    match c {
        // Before Hangul; punctuation, arrows and signs of mathematics; lines and blocks.
        '\0'..'\u{1100}' | '\u{1160}'..'\u{2300}' | '\u{2500}'..'\u{25a0}' => 1,
        _ => 2,
    }
}

/// The characters that a terminal would show: escape sequences and control characters are left out, tabs become spaces.
fn visible(text: &str) -> impl Iterator<Item = char> {
    let mut chars = text.chars().peekable();
    std::iter::from_fn(move || {
        loop {
            match chars.next()? {
                '\u{1b}' => {
                    if chars.next_if_eq(&'[').is_some() {
                        while chars.next_if(|c| !('@'..='~').contains(c)).is_some() {}
                    }
                    chars.next();
                }
                '\t' => return Some(' '),
                c if c.is_control() => {}
                c => return Some(c),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_buildkits_form() {
        assert_eq!(seconds(340_000_000), "0.3s");
        assert_eq!(log_time(123_000_000), "0.123 ");
        assert_eq!(log_time(12_345_000_000), "12.35 ");
        assert_eq!(log_time(123_450_000_000), "123.5 ");
        assert_eq!(bytes(31), "31B");
        assert_eq!(bytes(1500), "1.50kB");
        assert_eq!(bytes(2_750_000), "2.75MB");
    }

    #[test]
    fn lines_fit_the_terminal_and_cannot_steer_it() {
        assert_eq!(fit("abcdef", 4), "abc…");
        assert_eq!(fit("abcd", 4), "abcd");
        assert_eq!(fit("a→b…", 4), "a→b…");
        assert_eq!(fit("世界世", 5), "世…");
        assert_eq!(fit("a\u{1b}[31mred\u{1b}[0m\rb\tc", 80), "aredb c");
    }
}
