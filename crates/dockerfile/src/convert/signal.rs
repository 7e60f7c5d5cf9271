//! The signals that STOPSIGNAL may name.

const NAMES: [&str; 35] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
    "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
    "TTIN", "TTOU", "UNUSED", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
];

/// Whether this is a number other than 0, or a signal's name, with or without `SIG`, in any case; `RTMIN+n` and
/// `RTMAX-n` are names too.
pub(super) fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<i32>() {
        return number != 0;
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |text: &str, most: u8| {
        text.is_empty()
            || text[1..]
                .parse::<u8>()
                .is_ok_and(|n| (1..=most).contains(&n))
                && text.len() <= 3
    };
    NAMES.contains(&name)
        || name
            .strip_prefix("RTMIN")
            .is_some_and(|rest| (rest.is_empty() || rest.starts_with('+')) && offset(rest, 15))
        || name
            .strip_prefix("RTMAX")
            .is_some_and(|rest| (rest.is_empty() || rest.starts_with('-')) && offset(rest, 14))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_known() {
        for text in [
            "SIGTERM", "term", "9", "SIGRTMIN", "RTMIN+15", "rtmax-1", "SIGUSR1",
        ] {
            assert!(is_signal(text), "{text}");
        }
        for text in [
            "", "0", "SIG", "SIGNAL", "TERM ", "RTMIN+16", "RTMIN-1", "RTMAX+1", "RTMINé",
        ] {
            assert!(!is_signal(text), "{text}");
        }
    }
}
