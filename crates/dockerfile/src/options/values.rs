//! The values of attributes.

use std::net::IpAddr;

use bollard_buildkit_proto::pb;
use buildyard_model::Platform;

use super::ResolveMode;
use crate::{csv, limits};

/// Why a value is refused.
pub(super) enum Refusal {
    Invalid(String),
    Unsupported(&'static str),
}

pub(super) fn invalid(problem: impl Into<String>) -> Refusal {
    Refusal::Invalid(problem.into())
}

pub(super) fn platforms(value: &str) -> Result<Vec<Platform>, Refusal> {
    if value.is_empty() {
        return Ok(Vec::new());
    }
    let mut platforms: Vec<Platform> = Vec::new();
    for part in value.split(',') {
        let platform = part
            .trim()
            .parse()
            .map_err(|error| invalid(format!("{error}")))?;
        if !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    match platforms.len() > limits::PLATFORMS {
        true => Err(invalid(format!(
            "more than {} platforms",
            limits::PLATFORMS
        ))),
        false => Ok(platforms),
    }
}

pub(super) fn extra_hosts(value: &str) -> Result<Vec<pb::HostIp>, Refusal> {
    if value.is_empty() {
        return Ok(Vec::new());
    }
    let host = |field: &String| {
        let field = field.to_lowercase();
        let (host, ip) = field
            .split_once('=')
            .ok_or_else(|| invalid(format!("{field:?} must be host=ip")))?;
        let ip: IpAddr = ip
            .parse()
            .map_err(|_| invalid(format!("{ip:?} is not an IP address")))?;
        Ok(pb::HostIp {
            host: host.to_owned(),
            ip: ip.to_string(),
        })
    };
    csv::fields(value)
        .map_err(invalid)?
        .iter()
        .map(host)
        .collect()
}

pub(super) fn resolve_mode(value: &str) -> Result<ResolveMode, Refusal> {
    match value {
        "" | "default" => Ok(ResolveMode::Default),
        "pull" => Ok(ResolveMode::Pull),
        "local" => Ok(ResolveMode::Local),
        _ => Err(invalid("it must be default, pull or local")),
    }
}

pub(super) fn network(value: &str) -> Result<pb::NetMode, Refusal> {
    match value {
        "" | "sandbox" | "default" => Ok(pb::NetMode::Unset),
        "host" => Ok(pb::NetMode::Host),
        "none" => Ok(pb::NetMode::None),
        _ => Err(invalid("it must be default, host or none")),
    }
}

/// `name=soft[:hard]`, comma separated; -1 is unlimited.
pub(super) fn ulimits(value: &str) -> Result<Vec<pb::Ulimit>, Refusal> {
    const NAMES: [&str; 15] = [
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];
    let ulimit = |field: &String| {
        let refuse = || {
            invalid(format!(
                "{field:?} must be name=soft[:hard] of a known limit"
            ))
        };
        let (name, limits) = field
            .split_once('=')
            .filter(|(name, _)| NAMES.contains(name))
            .ok_or_else(refuse)?;
        let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
        let number = |text: &str| text.parse::<i64>().ok().filter(|&number| number >= -1);
        let (soft, hard) = number(soft).zip(number(hard)).ok_or_else(refuse)?;
        if hard != -1 && (soft > hard || soft == -1) {
            return Err(invalid(format!(
                "the soft limit of {name} is above the hard one"
            )));
        }
        Ok(pb::Ulimit {
            name: name.to_owned(),
            soft,
            hard,
        })
    };
    match value.is_empty() {
        true => Ok(Vec::new()),
        false => csv::fields(value)
            .map_err(invalid)?
            .iter()
            .map(ulimit)
            .collect(),
    }
}

/// Go's `strconv.ParseBool`.
pub(crate) fn parse_bool(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

pub(super) fn boolean(value: &str) -> Result<bool, Refusal> {
    parse_bool(value).ok_or_else(|| invalid("it must be true or false"))
}

/// Seconds since 1970 of `SOURCE_DATE_EPOCH`.
pub(crate) fn epoch(value: &str) -> Result<i64, String> {
    let seconds = value
        .parse::<i64>()
        .ok()
        .filter(|&seconds| jiff::Timestamp::from_second(seconds).is_ok());
    seconds.ok_or_else(|| "it must be a number of seconds since 1970".to_owned())
}
