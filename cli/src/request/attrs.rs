//! The attributes of the frontend `dockerfile.v0`, as buildx names them.

use std::collections::HashMap;

use buildyard_model::Platform;

use super::RequestError;
use crate::args::BuildArgs;

pub(super) fn frontend_attrs(
    args: &BuildArgs,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<HashMap<String, String>, RequestError> {
    let mut attrs = HashMap::new();
    for value in &args.build_arg {
        match value.split_once('=') {
            Some((key, text)) => drop(attrs.insert(
                format!("build-arg:{}", named("build-arg", key, value)?),
                text.into(),
            )),
            // Without a value in the environment the Dockerfile's default holds.
            None => drop(env(value).map(|text| attrs.insert(format!("build-arg:{value}"), text))),
        }
    }
    for value in &args.label {
        let (key, text) = value.split_once('=').unwrap_or((value, ""));
        attrs.insert(
            format!("label:{}", named("label", key, value)?),
            text.into(),
        );
    }
    let mut set =
        |key: &str, value: Option<String>| drop(value.map(|value| attrs.insert(key.into(), value)));
    set("target", args.target.clone());
    set("platform", platforms(&args.platform)?);
    set("no-cache", no_cache(args));
    set("image-resolve-mode", args.pull.then(|| "pull".into()));
    set("add-hosts", add_hosts(&args.add_host)?);
    set("force-network-mode", network(args.network.as_deref())?);
    set(
        "shm-size",
        args.shm_size.as_deref().map(shm_size).transpose()?,
    );
    set("ulimit", ulimits(&args.ulimit)?);
    set("cgroup-parent", args.cgroup_parent.clone());
    Ok(attrs)
}

fn named<'a>(flag: &'static str, key: &'a str, value: &str) -> Result<&'a str, RequestError> {
    if key.is_empty() {
        Err(RequestError::value(flag, value, "no name before '='"))
    } else {
        Ok(key)
    }
}

fn platforms(values: &[String]) -> Result<Option<String>, RequestError> {
    let mut names: Vec<String> = Vec::new();
    for value in values {
        let platform: Platform = value
            .trim()
            .parse()
            .map_err(|error| RequestError::value("platform", value, format!("{error}")))?;
        let name = platform.to_string();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok((!names.is_empty()).then(|| names.join(",")))
}

/// Empty text: every stage; else the stages by name.
fn no_cache(args: &BuildArgs) -> Option<String> {
    if args.no_cache {
        return Some(String::new());
    }
    (!args.no_cache_filter.is_empty()).then(|| args.no_cache_filter.join(","))
}

fn add_hosts(values: &[String]) -> Result<Option<String>, RequestError> {
    let mut hosts = Vec::new();
    for value in values {
        let (host, address) = value
            .split_once('=')
            .or_else(|| value.split_once(':'))
            .filter(|(host, _)| !host.is_empty())
            .ok_or_else(|| RequestError::value("add-host", value, "want HOST:IP"))?;
        let bare = address.trim_start_matches('[').trim_end_matches(']');
        if bare != "host-gateway" && bare.parse::<std::net::IpAddr>().is_err() {
            return Err(RequestError::value(
                "add-host",
                value,
                format!("{bare:?} is not an IP address"),
            ));
        }
        hosts.push(format!("{host}={bare}"));
    }
    Ok((!hosts.is_empty()).then(|| hosts.join(",")))
}

fn network(mode: Option<&str>) -> Result<Option<String>, RequestError> {
    match mode {
        None | Some("" | "default") => Ok(None),
        Some(mode @ ("none" | "host")) => Ok(Some(mode.into())),
        Some(mode) => Err(RequestError::value(
            "network",
            mode,
            "want default, none or host",
        )),
    }
}

/// Docker's sizes (`64m`, `1gb`, `512`) as a number of bytes.
fn shm_size(value: &str) -> Result<String, RequestError> {
    let refuse =
        || RequestError::value("shm-size", value, "want a size such as 67108864, 64m or 1g");
    let lower = value.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match lower[digits.len()..]
        .trim_end_matches("ib")
        .trim_end_matches('b')
    {
        "" => 1u64,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        _ => return Err(refuse()),
    };
    let number: u64 = digits.trim().parse().map_err(|_| refuse())?;
    number
        .checked_mul(unit)
        .map(|bytes| bytes.to_string())
        .ok_or_else(refuse)
}

fn ulimits(values: &[String]) -> Result<Option<String>, RequestError> {
    for value in values {
        let number = |text: &str| text.parse::<i64>().is_ok_and(|number| number >= -1);
        let well_formed = value.split_once('=').is_some_and(|(name, limits)| {
            let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
            !name.is_empty() && number(soft) && number(hard)
        });
        if !well_formed {
            return Err(RequestError::value(
                "ulimit",
                value,
                "want NAME=SOFT[:HARD], e.g. nofile=1024:2048",
            ));
        }
    }
    Ok((!values.is_empty()).then(|| values.join(",")))
}
