//! The servers' flags as checked settings. The wiring of `up`, `coordinator` and `worker` belongs here, one function each;
//! the servers themselves are the crates `buildyard-coordinator` and `buildyard-worker`.
//!
//! Checked here: addresses, and that an endpoint which strangers can reach asks for certificates.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use buildyard_model::Platform;

use crate::args::serve::{EndpointArgs, OfferArgs};
use crate::connect::DEFAULT_PORT;
use crate::exit::Failure;

/// One place to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddr {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

/// The certificate files of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain (PEM).
    pub cert: PathBuf,
    /// Its key (PEM).
    pub key: PathBuf,
    /// Who must have signed the clients' certificates (PEM); none: no certificates are asked for.
    pub client_ca: Option<PathBuf>,
}

/// Where to listen, and whom to let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointConfig {
    /// The addresses, at least one.
    pub listen: Vec<ListenAddr>,
    /// The certificates of the TCP addresses.
    pub tls: Option<TlsFiles>,
}

/// What a worker offers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OfferConfig {
    /// Only these platforms; empty: all that the machine can run.
    pub platforms: Vec<Platform>,
    /// How many steps at once; none: one for each processor.
    pub slots: Option<u32>,
}

/// How long running steps may go on after a request to stop.
pub fn grace(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Checks the flags of an endpoint.
///
/// # Errors
/// A malformed address; one beyond loopback without client certificates and without `--allow-unauthenticated`.
pub fn endpoint(args: &EndpointArgs) -> Result<EndpointConfig, Failure> {
    let mut listen = args
        .listen
        .iter()
        .map(|text| listen_addr(text))
        .collect::<Result<Vec<_>, _>>()?;
    if listen.is_empty() {
        listen.push(ListenAddr::Tcp(SocketAddr::from((
            [127, 0, 0, 1],
            DEFAULT_PORT,
        ))));
    }
    let tls = match (&args.tls_cert, &args.tls_key) {
        (Some(cert), Some(key)) => Some(TlsFiles {
            cert: cert.clone(),
            key: key.clone(),
            client_ca: args.client_ca.clone(),
        }),
        _ => None,
    };
    let authenticated = tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    let exposed = listen.iter().find_map(|addr| match addr {
        ListenAddr::Tcp(addr) if !addr.ip().is_loopback() => Some(addr),
        _ => None,
    });
    match exposed {
        Some(addr) if !authenticated && !args.allow_unauthenticated => {
            Err(Failure::usage(format!(
                "--listen {addr} is reachable from other machines: give --tls-cert, --tls-key and --client-ca, \
             or --allow-unauthenticated to let anybody in"
            )))
        }
        _ => Ok(EndpointConfig { listen, tls }),
    }
}

/// Checks what a worker shall offer.
///
/// # Errors
/// A text that is no platform.
pub fn offer(args: &OfferArgs) -> Result<OfferConfig, Failure> {
    let platforms = args
        .platforms
        .iter()
        .map(|text| {
            text.trim()
                .parse()
                .map_err(|error| Failure::usage(format!("--platforms: {error}")))
        })
        .collect::<Result<_, _>>()?;
    Ok(OfferConfig {
        platforms,
        slots: args.slots,
    })
}

fn listen_addr(text: &str) -> Result<ListenAddr, Failure> {
    if let Some(path) = text.strip_prefix("unix://") {
        return Ok(ListenAddr::Unix(path.into()));
    }
    let address = text.strip_prefix("tcp://").unwrap_or(text);
    let address = address
        .strip_prefix("localhost:")
        .map_or_else(|| address.to_owned(), |p| format!("127.0.0.1:{p}"));
    let address = if address.starts_with(':') {
        format!("0.0.0.0{address}")
    } else {
        address
    };
    address.parse().map(ListenAddr::Tcp).map_err(|_| {
        Failure::usage(format!(
            "--listen {text:?} is not an address (want IP:PORT, tcp://IP:PORT or unix://PATH)"
        ))
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::serve::ServeCommand;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        command: ServeCommand,
    }

    fn endpoint_of(words: &[&str]) -> Result<EndpointConfig, Failure> {
        let line = ["buildyard", "coordinator", "--data", "d"]
            .iter()
            .chain(words);
        match Line::try_parse_from(line).unwrap().command {
            ServeCommand::Coordinator(args) => endpoint(&args.endpoint),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn addresses_are_read() {
        let check = |words: &[&str], expected: &[ListenAddr]| {
            assert_eq!(endpoint_of(words).unwrap().listen, expected, "{words:?}");
        };
        let tcp = |text: &str| ListenAddr::Tcp(text.parse().unwrap());
        check(&[], &[tcp("127.0.0.1:8372")]);
        check(&["--listen", "localhost:1"], &[tcp("127.0.0.1:1")]);
        check(
            &["--listen", "tcp://[::1]:1", "--listen", "unix:///r/b"],
            &[tcp("[::1]:1"), ListenAddr::Unix("/r/b".into())],
        );
        assert!(endpoint_of(&["--listen", "nonsense"]).is_err());
    }

    #[test]
    fn an_exposed_endpoint_asks_for_certificates() {
        let refused =
            |words: &[&str]| assert_eq!(endpoint_of(words).unwrap_err().number(), 2, "{words:?}");
        refused(&["--listen", "0.0.0.0:1"]);
        refused(&["--listen", ":1"]);
        refused(&["--listen", "0.0.0.0:1", "--tls-cert", "c", "--tls-key", "k"]);
        endpoint_of(&[
            "--listen",
            "0.0.0.0:1",
            "--tls-cert",
            "c",
            "--tls-key",
            "k",
            "--client-ca",
            "a",
        ])
        .unwrap();
        endpoint_of(&["--listen", "0.0.0.0:1", "--allow-unauthenticated"]).unwrap();
    }

    #[test]
    fn workers_offer_platforms_and_slots() {
        let line = [
            "buildyard",
            "worker",
            "--join",
            "http://c:1",
            "--data",
            "d",
            "--platforms",
            "linux/aarch64,arm",
            "--slots",
            "3",
        ];
        let ServeCommand::Worker(args) = Line::try_parse_from(line).unwrap().command else {
            panic!("not a worker")
        };
        let offer = offer(&args.offer).unwrap();
        assert_eq!(
            offer.platforms,
            [
                "linux/arm64".parse().unwrap(),
                "linux/arm/v7".parse().unwrap()
            ]
        );
        assert_eq!(offer.slots, Some(3));
    }

    #[test]
    fn half_a_certificate_is_refused() {
        for words in [
            ["--tls-cert", "c"],
            ["--tls-key", "k"],
            ["--client-ca", "a"],
        ] {
            let line = ["buildyard", "up", "--data", "d"].iter().chain(&words);
            assert!(Line::try_parse_from(line).is_err(), "{words:?}");
        }
    }
}
