//! The URLs that name a farm.

use std::fmt;
use std::path::PathBuf;

/// The port of a farm, where a `tcp://` URL names none.
pub const DEFAULT_PORT: u16 = 8372;

/// Where a farm listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A TCP port.
    Tcp {
        /// Name or address, without brackets.
        host: String,
        /// The port.
        port: u16,
        /// What the scheme says about TLS.
        tls: Tls,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

/// Whether to speak TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// `https://`
    Always,
    /// `http://`
    Never,
    /// `tcp://` and bare addresses: when certificates are given, as buildx does.
    WithCertificates,
}

/// A text that names no farm.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// The scheme is not one of ours.
    #[error("{0:?} begins with an unknown scheme (known: http://, https://, tcp://, unix://)")]
    Scheme(String),
    /// No host, a bad port, or a path behind the port.
    #[error("{0:?} is not an address of a farm (want e.g. https://farm.example:8372)")]
    Malformed(String),
}

impl Target {
    /// Where `buildyard up` listens when nothing else is said.
    pub fn default_farm() -> Self {
        Self::Tcp {
            host: "127.0.0.1".into(),
            port: DEFAULT_PORT,
            tls: Tls::WithCertificates,
        }
    }
}

impl std::str::FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || TargetError::Malformed(text.to_owned());
        let (scheme, rest) = text.split_once("://").unwrap_or(("tcp", text));
        let (tls, default_port) = match scheme {
            "unix" if rest.is_empty() => return Err(malformed()),
            "unix" => return Ok(Self::Unix(rest.into())),
            "http" => (Tls::Never, 80),
            "https" => (Tls::Always, 443),
            "tcp" => (Tls::WithCertificates, DEFAULT_PORT),
            _ => return Err(TargetError::Scheme(text.to_owned())),
        };
        let (host, port) =
            host_port(rest.strip_suffix('/').unwrap_or(rest)).ok_or_else(malformed)?;
        Ok(Self::Tcp {
            host,
            port: port.unwrap_or(default_port),
            tls,
        })
    }
}

fn host_port(text: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, behind) = rest.split_once(']')?;
        host.parse::<std::net::Ipv6Addr>().ok()?;
        (host, behind)
    } else {
        match text.find(':') {
            Some(colon) => text.split_at(colon),
            None => (text, ""),
        }
    };
    let port = match port {
        "" => None,
        port => Some(port.strip_prefix(':')?.parse().ok()?),
    };
    let well_formed = !host.is_empty()
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b".-_:".contains(&b));
    well_formed.then(|| (host.to_owned(), port))
}

/// The URL as a user would type it.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { host, port, tls } => {
                let scheme = match tls {
                    Tls::Always => "https",
                    Tls::Never => "http",
                    Tls::WithCertificates => "tcp",
                };
                let (open, close) = if host.contains(':') {
                    ("[", "]")
                } else {
                    ("", "")
                };
                write!(f, "{scheme}://{open}{host}{close}:{port}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_farms() {
        let check = |text: &str, expected: &str| {
            assert_eq!(
                text.parse::<Target>().map(|t| t.to_string()).as_deref(),
                Ok(expected),
                "{text}"
            );
        };
        check("http://127.0.0.1:8372", "http://127.0.0.1:8372");
        check("http://farm/", "http://farm:80");
        check("https://farm.example", "https://farm.example:443");
        check("tcp://farm", "tcp://farm:8372");
        check("farm:1", "tcp://farm:1");
        check("tcp://[::1]:9", "tcp://[::1]:9");
        check("unix:///run/b.sock", "unix:///run/b.sock");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "tcp://",
            "ftp://x",
            "http://a:b",
            "http://a:1/path",
            "unix://",
            "tcp://[x]:1",
            "a:1:2",
            "http://a b",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }
}
