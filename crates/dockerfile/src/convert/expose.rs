//! EXPOSE: ports, ranges and protocols.

use std::net::IpAddr;

use super::quote::list;
use super::stage::Running;
use crate::error::Problem;
use crate::expand::Expander;

pub(super) fn expose(running: &mut Running<'_, '_>, ports: &[String]) -> Result<(), Problem> {
    let mut exposed = Vec::new();
    for port in ports {
        let how = Expander::new(running.work.file.escape);
        let words = running
            .work
            .expand_with(how, port, &running.stage.state.env)?
            .words;
        for word in words {
            let (protocol, range) = parse(&word).map_err(Problem::Invalid)?;
            running.work.spend(range.len() * 10)?;
            exposed.extend(range.map(|port| format!("{port}/{protocol}")));
        }
    }
    let set = running.config().exposed_ports.get_or_insert_default();
    set.extend(
        exposed
            .iter()
            .map(|port| (port.clone(), Default::default())),
    );
    running.history(format!("EXPOSE {}", list(&exposed)), true)
}

/// `[[ip:]host-port:]port[-port][/protocol]`. Address and port of the host are checked and without effect.
fn parse(text: &str) -> Result<(String, std::ops::RangeInclusive<u32>), String> {
    let (rest, container) = text.rsplit_once(':').unwrap_or(("", text));
    let (ip, host) = rest.rsplit_once(':').unwrap_or(("", rest));
    let (port, protocol) = container.split_once('/').unwrap_or((container, ""));
    if port.is_empty() {
        return Err(format!("no port specified: {text}<empty>"));
    }
    let protocol = protocol.to_lowercase();
    let protocol = match protocol.as_str() {
        "" => "tcp".to_owned(),
        "tcp" | "udp" | "sctp" => protocol,
        _ => return Err(format!("invalid proto: {protocol}")),
    };
    let address = ip
        .strip_prefix('[')
        .and_then(|ip| ip.strip_suffix(']'))
        .unwrap_or(ip);
    if !address.is_empty() && address.parse::<IpAddr>().is_err() {
        return Err(format!("invalid IP address: {ip}"));
    }
    let ports = range(port).ok_or_else(|| format!("invalid containerPort: {port}"))?;
    if !host.is_empty() {
        let hosts = range(host).ok_or_else(|| format!("invalid hostPort: {host}"))?;
        if hosts.len() != ports.len() && ports.len() > 1 {
            return Err(format!(
                "invalid ranges specified for container and host Ports: {port} and {host}"
            ));
        }
    }
    Ok((protocol, ports))
}

trait Length {
    fn len(&self) -> usize;
}

impl Length for std::ops::RangeInclusive<u32> {
    fn len(&self) -> usize {
        (self.end() - self.start() + 1) as usize
    }
}

fn range(text: &str) -> Option<std::ops::RangeInclusive<u32>> {
    let (start, end) = text.split_once('-').unwrap_or((text, text));
    let (start, end) = (start.parse::<u16>().ok()?, end.parse::<u16>().ok()?);
    (start <= end).then(|| u32::from(start)..=u32::from(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read() {
        let check = |text: &str, protocol: &str, start: u32, end: u32| {
            assert_eq!(
                parse(text),
                Ok((protocol.to_owned(), start..=end)),
                "{text}"
            );
        };
        check("80", "tcp", 80, 80);
        check("80/UDP", "udp", 80, 80);
        check("8000-8002/sctp", "sctp", 8000, 8002);
        check("127.0.0.1:8080:80", "tcp", 80, 80);
        check("[::1]:8080:80", "tcp", 80, 80);
        check("8000-8002:80", "tcp", 80, 80);
        check("0-65535", "tcp", 0, 65535);
    }

    #[test]
    fn others_are_refused() {
        for text in [
            "",
            "/tcp",
            "80/http",
            "x",
            "70000",
            "2-1",
            "1-2-3",
            "x:80",
            "1-3:80-81",
            "host:1:80",
            "-1",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
