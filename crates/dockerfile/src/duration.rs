//! Durations as Go writes them: `1h15m30.918s`, `300ms`.

const UNITS: [(&str, i128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads a duration as `time.ParseDuration` does. Nanoseconds.
pub(crate) fn parse(text: &str) -> Result<i64, String> {
    let refuse = || format!("{text:?} is not a duration (want e.g. 30s, 5m, 1h30m)");
    let (sign, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (-1, &text[1..]),
        Some(b'+') => (1, &text[1..]),
        _ => (1, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(refuse());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(refuse)?;
        let (number, tail) = rest.split_at(end);
        let end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let (_, scale) = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(refuse)?;
        total = part(number, *scale)
            .and_then(|part| total.checked_add(part))
            .ok_or_else(refuse)?;
        rest = tail;
    }
    i64::try_from(sign * total).map_err(|_| refuse())
}

/// `number` with an optional fraction, times `scale`.
fn part(number: &str, scale: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole: i128 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let digits = &fraction[..fraction.len().min(18)];
    let fraction = if digits.is_empty() {
        0
    } else {
        digits.parse::<i128>().ok()? * scale
    };
    whole
        .checked_mul(scale)?
        .checked_add(fraction / 10_i128.pow(digits.len() as u32))
}

/// Writes a duration as `time.Duration.String` does.
pub(crate) fn format(nanoseconds: i64) -> String {
    let size = i128::from(nanoseconds).unsigned_abs();
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let decimal = |value: u128, scale: u128| {
        let fraction = format!("{:0width$}", value % scale, width = scale.ilog10() as usize);
        let fraction = fraction.trim_end_matches('0');
        let point = if fraction.is_empty() || scale == 1 {
            ""
        } else {
            "."
        };
        format!(
            "{}{point}{}",
            value / scale,
            if scale == 1 { "" } else { fraction }
        )
    };
    match size {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{size}ns"),
        1_000..1_000_000 => format!("{sign}{}µs", decimal(size, 1_000)),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", decimal(size, 1_000_000)),
        _ => {
            let (minutes, rest) = (size / 60_000_000_000, size % 60_000_000_000);
            let seconds = decimal(rest, 1_000_000_000);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{sign}{seconds}s"),
                (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        let check = |text: &str, nanoseconds: i64, written: &str| {
            assert_eq!(parse(text), Ok(nanoseconds), "{text}");
            assert_eq!(format(nanoseconds), written, "{text}");
        };
        check("30s", 30_000_000_000, "30s");
        check("5m", 300_000_000_000, "5m0s");
        check("1h30m", 5_400_000_000_000, "1h30m0s");
        check("1.5s", 1_500_000_000, "1.5s");
        check(".5s", 500_000_000, "500ms");
        check("1h0.25s", 3_600_250_000_000, "1h0m0.25s");
        check("1500us", 1_500_000, "1.5ms");
        check("7ns", 7, "7ns");
        check("2µs", 2_000, "2µs");
        check("0", 0, "0s");
        check("-2m", -120_000_000_000, "-2m0s");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "5",
            "s",
            ".s",
            "1x",
            "1.2.3s",
            "9999999999h",
            "-",
            "1s2",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
