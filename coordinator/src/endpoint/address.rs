//! Addresses to listen on: `HOST:PORT`, `tcp://HOST:PORT`, `unix://PATH`.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tokio::net::{TcpListener, UnixListener};

use super::Listener;

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A host (name or IP address) and a port; port 0 takes a free one.
    Tcp(String),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// A text that is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address to listen on (want HOST:PORT, tcp://HOST:PORT or unix:///PATH)")]
pub struct ParseAddressError(String);

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix://") {
            return if path.starts_with('/') {
                Ok(Self::Unix(path.into()))
            } else {
                Err(ParseAddressError(text.into()))
            };
        }
        let bare = text.strip_prefix("tcp://").unwrap_or(text);
        let port = bare
            .rsplit_once(':')
            .and_then(|(host, port)| (!host.is_empty()).then(|| port.parse::<u16>()));
        match port {
            Some(Ok(_)) if !bare.contains('/') => Ok(Self::Tcp(bare.to_owned())),
            _ => Err(ParseAddressError(text.to_owned())),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

impl Address {
    /// Whether only this machine can reach it.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp(address) => match address.parse::<SocketAddr>() {
                Ok(address) => address.ip().is_loopback(),
                Err(_) => address.starts_with("localhost:"),
            },
        }
    }

    pub(super) async fn bind(&self) -> io::Result<(Listener, Self)> {
        match self {
            Self::Tcp(address) => {
                let listener = TcpListener::bind(address).await?;
                let bound = Self::Tcp(listener.local_addr()?.to_string());
                Ok((Listener::Tcp(listener), bound))
            }
            Self::Unix(path) => {
                remove_dead_socket(path).await?;
                let listener = UnixListener::bind(path)?;
                Ok((
                    Listener::Unix {
                        listener,
                        _file: UnixSocketFile(path.clone()),
                    },
                    self.clone(),
                ))
            }
        }
    }
}

/// A socket file that nobody listens on was left by a crash. One that answers belongs to somebody.
async fn remove_dead_socket(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {
            if tokio::net::UnixStream::connect(path).await.is_ok() {
                return Err(io::Error::new(
                    io::ErrorKind::AddrInUse,
                    "another process listens on this socket",
                ));
            }
            std::fs::remove_file(path)
        }
        _ => Ok(()),
    }
}

/// Removes the socket's file in the end.
pub(super) struct UnixSocketFile(PathBuf);

impl Drop for UnixSocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_apart() {
        let check = |text: &str, expected: Option<(&str, bool)>| {
            let address = text.parse::<Address>().ok();
            let seen = address.map(|a| (a.to_string(), a.is_local()));
            assert_eq!(
                seen,
                expected.map(|(text, local)| (text.to_owned(), local)),
                "{text}"
            );
        };
        check("127.0.0.1:8372", Some(("tcp://127.0.0.1:8372", true)));
        check("tcp://0.0.0.0:1", Some(("tcp://0.0.0.0:1", false)));
        check("[::1]:80", Some(("tcp://[::1]:80", true)));
        check("localhost:80", Some(("tcp://localhost:80", true)));
        check(
            "build.example:443",
            Some(("tcp://build.example:443", false)),
        );
        check("unix:///run/b.sock", Some(("unix:///run/b.sock", true)));
        check("unix://relative", None);
        check("127.0.0.1", None);
        check(":80", None);
        check("http://127.0.0.1:80", None);
    }
}
