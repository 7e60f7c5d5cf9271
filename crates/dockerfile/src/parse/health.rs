//! HEALTHCHECK.

use buildyard_image::Healthcheck;

use super::Request;
use super::flags::{Flags, Takes};
use crate::duration;
use crate::error::Fault;
use crate::lex::words;

const FLAGS: [(&str, Takes); 5] = [
    ("interval", Takes::One),
    ("timeout", Takes::One),
    ("start-period", Takes::One),
    ("start-interval", Takes::One),
    ("retries", Takes::One),
];

pub(super) fn healthcheck(request: &Request) -> Result<Healthcheck, Fault> {
    let rest = request.parts.rest.as_str();
    let (kind, command) = rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len()));
    let command = command.trim_start();
    match kind.to_ascii_uppercase().as_str() {
        "" => Err(Fault::new("HEALTHCHECK requires at least one argument")),
        "NONE" => {
            request.no_flags()?;
            match command.is_empty() {
                true => Ok(Healthcheck {
                    test: vec!["NONE".to_owned()],
                    ..Healthcheck::default()
                }),
                false => Err(Fault::new("HEALTHCHECK NONE takes no arguments").at(command)),
            }
        }
        "CMD" => check(&Flags::parse(&request.parts.flags, &FLAGS)?, command),
        other => {
            Err(Fault::new(format!("Unknown type {other:?} in HEALTHCHECK (try CMD)")).at(kind))
        }
    }
}

fn check(flags: &Flags, command: &str) -> Result<Healthcheck, Fault> {
    let (first, arguments) = match words::json(command).map_err(Fault::new)? {
        Some(arguments) => ("CMD", arguments),
        None if command.is_empty() => ("", Vec::new()),
        None => ("CMD-SHELL", vec![command.to_owned()]),
    };
    if arguments.is_empty() {
        return Err(Fault::new("Missing command after HEALTHCHECK CMD"));
    }
    Ok(Healthcheck {
        test: [first.to_owned()].into_iter().chain(arguments).collect(),
        interval: interval(flags, "interval")?,
        timeout: interval(flags, "timeout")?,
        start_period: interval(flags, "start-period")?,
        start_interval: interval(flags, "start-interval")?,
        retries: retries(flags)?,
    })
}

/// A duration in nanoseconds; 0 if it is not given. Docker refuses those under a millisecond.
fn interval(flags: &Flags, name: &str) -> Result<i64, Fault> {
    const MINIMUM: i64 = 1_000_000;
    let Some(text) = flags.text(name) else {
        return Ok(0);
    };
    let refuse = |message: String| Fault::new(message).at(format!("--{name}"));
    let nanoseconds = duration::parse(&text).map_err(refuse)?;
    match nanoseconds {
        0 => Ok(0),
        short if short < MINIMUM => {
            Err(refuse(format!("Interval {name:?} cannot be less than 1ms")))
        }
        _ => Ok(nanoseconds),
    }
}

fn retries(flags: &Flags) -> Result<i64, Fault> {
    let Some(text) = flags.text("retries") else {
        return Ok(0);
    };
    let refuse = |message: String| Fault::new(message).at("--retries");
    match text.parse::<i32>() {
        Ok(number) if number < 0 => Err(refuse(format!("--retries cannot be negative ({number})"))),
        Ok(number) => Ok(i64::from(number)),
        Err(_) => Err(refuse(format!("--retries must be a number, not {text:?}"))),
    }
}
