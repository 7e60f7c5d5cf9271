//! Reaching a farm: which one, over which transport, with which certificates.
//!
//! One way of dialling serves gRPC and the HTTP API. Nothing is retried here: a farm that does not answer is said so at once.

mod target;
mod tls;

pub use target::{DEFAULT_PORT, Target, TargetError, Tls};

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tonic::transport::{Channel, Endpoint, Uri};

use crate::args::FarmArgs;
use crate::exit::{Failure, root_cause};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Windows for contexts and exports, which travel through one stream of this connection.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;

/// Why a farm cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A flag names none.
    #[error("{flag}: {error}")]
    Target {
        /// The flag.
        flag: &'static str,
        /// What is wrong with its value.
        error: TargetError,
    },
    /// Certificates for a transport without TLS.
    #[error("--ca, --cert and --key need a https:// or tcp:// URL, not {0}")]
    NoTls(String),
    /// A certificate or key file is of no use.
    #[error("cannot use {}: {reason}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The certificates do not fit each other.
    #[error("cannot set TLS up: {0}")]
    Tls(rustls::Error),
    /// Nothing answers there.
    #[error("cannot reach the farm at {target}: {reason}; {hint}")]
    Unreachable {
        /// The URL.
        target: String,
        /// What the system said.
        reason: String,
        /// What to do.
        hint: &'static str,
    },
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Target { .. } | ConnectError::NoTls(_) => Self::Usage(error.to_string()),
            ConnectError::Pem { .. } | ConnectError::Tls(_) => Self::Asked(error.into()),
            ConnectError::Unreachable { .. } => Self::Farm(error.into()),
        }
    }
}

/// A byte stream to a farm.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A farm that can be dialled.
#[derive(Debug, Clone)]
pub struct Farm {
    target: Target,
    args: FarmArgs,
    named_by: NamedBy,
}

/// How a farm came to be the one that is dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NamedBy {
    /// `--builder`, or `BUILDYARD_BUILDER`.
    Builder,
    /// A worker's `--join`.
    Join,
    /// Nothing: it is the one on this machine.
    Nothing,
}

impl NamedBy {
    fn flag(self) -> &'static str {
        match self {
            Self::Builder | Self::Nothing => "--builder",
            Self::Join => "--join",
        }
    }

    /// What to do when nothing answers.
    fn hint(self) -> &'static str {
        match self {
            Self::Builder => {
                "check --builder (or BUILDYARD_BUILDER), and that the coordinator runs there"
            }
            Self::Join => "check --join, and that the coordinator runs there",
            Self::Nothing => {
                "start one with `buildyard up --data DIR`, or name one with --builder or BUILDYARD_BUILDER"
            }
        }
    }
}

impl Farm {
    /// The farm that the flags (or the environment) name, else the one on this machine. Nothing is dialled yet.
    ///
    /// # Errors
    /// The URL is malformed, or certificates are given for a transport without TLS.
    pub fn new(args: &FarmArgs) -> Result<Self, ConnectError> {
        let named = args.builder.as_deref().filter(|url| !url.is_empty());
        match named {
            Some(url) => Self::named(url, NamedBy::Builder, args),
            None => Self::at(Target::default_farm(), NamedBy::Nothing, args),
        }
    }

    /// The farm that a worker joins. Nothing is dialled yet; the builder that `args` name is not looked at.
    ///
    /// # Errors
    /// The URL is malformed, or certificates are given for a transport without TLS.
    pub fn to_join(url: &str, args: &FarmArgs) -> Result<Self, ConnectError> {
        Self::named(url, NamedBy::Join, args)
    }

    fn named(url: &str, named_by: NamedBy, args: &FarmArgs) -> Result<Self, ConnectError> {
        let flag = named_by.flag();
        let target = url.parse();
        let target = target.map_err(|error| ConnectError::Target { flag, error })?;
        Self::at(target, named_by, args)
    }

    fn at(target: Target, named_by: NamedBy, args: &FarmArgs) -> Result<Self, ConnectError> {
        let certificates = args.ca.is_some() || args.cert.is_some();
        if certificates
            && matches!(
                target,
                Target::Unix(_)
                    | Target::Tcp {
                        tls: Tls::Never,
                        ..
                    }
            )
        {
            return Err(ConnectError::NoTls(target.to_string()));
        }
        Ok(Self {
            target,
            args: args.clone(),
            named_by,
        })
    }

    /// Where the farm is.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Whether its connections are encrypted.
    pub fn uses_tls(&self) -> bool {
        match &self.target {
            Target::Unix(_) => false,
            Target::Tcp { tls, .. } => match tls {
                Tls::Always => true,
                Tls::Never => false,
                Tls::WithCertificates => self.args.ca.is_some() || self.args.cert.is_some(),
            },
        }
    }

    /// The host for `Host` headers and the `:authority` of HTTP/2.
    pub fn authority(&self) -> String {
        match &self.target {
            Target::Unix(_) => "localhost".into(),
            Target::Tcp { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
            Target::Tcp { host, port, .. } => format!("{host}:{port}"),
        }
    }

    /// Opens one connection, for the protocol `alpn` where it is encrypted.
    ///
    /// # Errors
    /// Nothing answers, the handshake fails, or the certificate files are of no use.
    pub async fn dial(&self, alpn: &[u8]) -> Result<Box<dyn Stream>, ConnectError> {
        let attempt = async {
            match &self.target {
                Target::Unix(path) => {
                    let stream = UnixStream::connect(path)
                        .await
                        .map_err(|e| self.unreachable(&e))?;
                    Ok(Box::new(stream) as Box<dyn Stream>)
                }
                Target::Tcp { host, port, .. } => {
                    let stream = TcpStream::connect((host.as_str(), *port))
                        .await
                        .map_err(|e| self.unreachable(&e))?;
                    stream.set_nodelay(true).map_err(|e| self.unreachable(&e))?;
                    if self.uses_tls() {
                        self.handshake(stream, host, alpn).await
                    } else {
                        Ok(Box::new(stream) as Box<dyn Stream>)
                    }
                }
            }
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, attempt).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.unreachable(&"no answer within 10 seconds")),
        }
    }

    async fn handshake(
        &self,
        stream: TcpStream,
        host: &str,
        alpn: &[u8],
    ) -> Result<Box<dyn Stream>, ConnectError> {
        let config = tls::config(&self.args, alpn)?;
        let name = rustls_pki_types::ServerName::try_from(host.to_owned())
            .map_err(|e| self.unreachable(&e))?;
        let connector = tokio_rustls::TlsConnector::from(config);
        let stream = connector
            .connect(name, stream)
            .await
            .map_err(|e| self.unreachable(&e))?;
        Ok(Box::new(stream))
    }

    /// A gRPC channel that dials when it is first used, and again whenever its connection broke.
    ///
    /// # Errors
    /// The URL has no usable authority.
    pub fn lazy_channel(&self) -> Result<Channel, ConnectError> {
        let farm = self.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let farm = farm.clone();
            async move { farm.dial(b"h2").await.map(TokioIo::new) }
        });
        Ok(self.dial_settings()?.connect_with_connector_lazy(connector))
    }

    /// A gRPC channel, its first connection open.
    ///
    /// # Errors
    /// As [`Farm::dial`]; also when what answers does not speak HTTP/2.
    pub async fn channel(&self) -> Result<Channel, ConnectError> {
        let first = Arc::new(Mutex::new(Some(self.dial(b"h2").await?)));
        let farm = self.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let ready = first
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .take();
            let farm = farm.clone();
            async move {
                match ready {
                    Some(stream) => Ok(TokioIo::new(stream)),
                    None => farm.dial(b"h2").await.map(TokioIo::new),
                }
            }
        });
        self.dial_settings()?
            .connect_with_connector(connector)
            .await
            .map_err(|error| ConnectError::Unreachable {
                target: self.target.to_string(),
                reason: root_cause(&error).unwrap_or_else(|| error.to_string()),
                hint: self
                    .certificate_hint()
                    .unwrap_or_else(|| self.named_by.hint()),
            })
    }

    /// What may be wrong when an encrypted connection ends before its first answer: servers look at a client's certificate
    /// after the client has taken the connection for open.
    pub fn certificate_hint(&self) -> Option<&'static str> {
        let hint = match self.args.cert {
            None => "if the farm asks for a certificate, give one with --cert and --key",
            Some(_) => "the farm may not accept the certificate of --cert",
        };
        self.uses_tls().then_some(hint)
    }

    fn dial_settings(&self) -> Result<Endpoint, ConnectError> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.authority()));
        Ok(endpoint
            .map_err(|e| self.unreachable(&e))?
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(20)))
    }

    fn unreachable(&self, reason: &dyn std::fmt::Display) -> ConnectError {
        ConnectError::Unreachable {
            target: self.target.to_string(),
            reason: reason.to_string(),
            hint: self.named_by.hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_cannot_be_reached_is_told_by_the_flag_that_named_it() {
        let join = |url| Farm::to_join(url, &FarmArgs::default());
        let said = |farm: Farm| farm.unreachable(&"refused").to_string();
        let worker = said(join("http://farm.example").unwrap());
        assert!(
            worker.contains("--join") && !worker.contains("--builder"),
            "{worker}"
        );
        assert!(said(farm(Some("http://farm.example"), None).unwrap()).contains("--builder"));
        assert!(said(farm(None, None).unwrap()).contains("buildyard up"));
        let wrong = join("ftp://farm.example").unwrap_err().to_string();
        assert!(wrong.starts_with("--join: "), "{wrong}");
    }

    fn farm(builder: Option<&str>, ca: Option<&str>) -> Result<Farm, ConnectError> {
        let args = FarmArgs {
            builder: builder.map(Into::into),
            ca: ca.map(Into::into),
            ..FarmArgs::default()
        };
        Farm::new(&args)
    }

    #[test]
    fn the_scheme_and_the_certificates_decide_about_tls() {
        let check = |builder: Option<&str>, ca: Option<&str>, expected: bool| {
            assert_eq!(
                farm(builder, ca).unwrap().uses_tls(),
                expected,
                "{builder:?} {ca:?}"
            );
        };
        check(None, None, false);
        check(Some(""), None, false);
        check(Some("https://a"), None, true);
        check(Some("tcp://a"), None, false);
        check(Some("tcp://a"), Some("ca.pem"), true);
        check(Some("http://a"), None, false);
        for builder in ["http://a", "unix:///x"] {
            let failure = Failure::from(farm(Some(builder), Some("ca.pem")).unwrap_err());
            assert_eq!(failure.number(), 2, "{builder}");
        }
    }

    #[tokio::test]
    async fn nobody_there_is_the_farms_fault_and_says_what_to_start() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = farm(Some(&format!("tcp://{address}")), None)
            .unwrap()
            .channel()
            .await
            .unwrap_err();
        assert!(error.to_string().contains(&address.to_string()), "{error}");
        assert_eq!(Failure::from(error).number(), 3);

        let error = farm(Some("unix:///nonexistent/socket"), None)
            .unwrap()
            .channel()
            .await
            .unwrap_err();
        assert_eq!(Failure::from(error).number(), 3);

        let mut unnamed = farm(None, None).unwrap();
        unnamed.target = format!("tcp://{address}").parse().unwrap();
        let error = unnamed.channel().await.unwrap_err();
        assert!(error.to_string().contains("buildyard up"), "{error}");
    }
}
