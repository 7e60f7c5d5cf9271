//! What can go wrong with a registry, each told apart: what was asked for, of whom, why it failed, what to do.

use std::time::Duration;

use buildyard_model::Platform;
use oci_client::errors::OciDistributionError;

/// A failed operation on a registry.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RegistryError {
    /// The registry answered that it isn't there.
    #[error("{what}: not found")]
    NotFound {
        /// The reference, or the blob and its repository.
        what: String,
    },
    /// The image is there, but not for this platform.
    #[error(
        "{reference}: no match for platform {platform} in manifest: not found (the image has {})",
        list(available)
    )]
    NoSuchPlatform {
        /// The image.
        reference: String,
        /// What was wanted.
        platform: Platform,
        /// What there is.
        available: Vec<Platform>,
    },
    /// The registry doesn't let us.
    #[error(
        "{what}: access denied by {host} ({tried}): the repository does not exist or may require authorization{}; log in with `docker login{}` where the build is started",
        said(message),
        login_argument(host)
    )]
    Unauthorized {
        /// What was asked for.
        what: String,
        /// The registry.
        host: String,
        /// Which credentials were shown, without secrets.
        tried: String,
        /// What the registry said; may be empty.
        message: String,
    },
    /// The client couldn't give credentials.
    #[error("{what}: the client could not be asked for credentials for {host}: {cause}")]
    Credentials {
        /// What was asked for.
        what: String,
        /// The registry.
        host: String,
        /// What the client said.
        cause: String,
    },
    /// Nobody answers at that address.
    #[error(
        "{what}: the registry {host} cannot be reached: {cause}; is it running, and does the name resolve from the farm?"
    )]
    Unreachable {
        /// What was asked for.
        what: String,
        /// The registry.
        host: String,
        /// What the system said, with the address.
        cause: String,
    },
    /// The registry's certificate isn't trusted, or the handshake failed.
    #[error(
        "{what}: no trusted TLS connection to {host}: {cause}; add its CA to the certificates that the coordinator's machine trusts, or set registry.insecure=true on the output"
    )]
    Tls {
        /// What was asked for.
        what: String,
        /// The registry.
        host: String,
        /// What the TLS library said.
        cause: String,
    },
    /// The registry speaks plain HTTP, which isn't allowed for it.
    #[error(
        "{what}: http: server gave HTTP response to HTTPS client: {host} speaks plain HTTP; set registry.insecure=true if that is meant"
    )]
    PlainHttp {
        /// What was asked for.
        what: String,
        /// The registry.
        host: String,
    },
    /// The registry was silent for too long.
    #[error("{what}: {host} did not answer in time")]
    TimedOut {
        /// What was asked for.
        what: String,
        /// The registry.
        host: String,
    },
    /// The connection broke.
    #[error("{what}: the connection broke: {cause}")]
    Interrupted {
        /// What was under way.
        what: String,
        /// What the network library said.
        cause: String,
    },
    /// Any other answer that isn't success.
    #[error("{what}: the registry answered {status}{}", said(message))]
    Refused {
        /// What was asked for.
        what: String,
        /// HTTP status.
        status: u16,
        /// What the registry said; may be empty.
        message: String,
        /// How long the registry asks to wait.
        retry_after: Option<Duration>,
    },
    /// What came isn't what its digest or size says.
    #[error("{what} is damaged: {cause}")]
    Damaged {
        /// The blob or document.
        what: String,
        /// How it differs.
        cause: String,
    },
    /// A document that can't be used.
    #[error("{what}: {cause}")]
    Document {
        /// The reference.
        what: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The bytes to upload couldn't be read.
    #[error("{what}: the bytes to upload could not be read: {cause}")]
    Source {
        /// The blob.
        what: String,
        /// What reading said.
        cause: String,
    },
    /// The configuration can't be used.
    #[error("registry configuration: {0}")]
    Config(String),
}

fn list(platforms: &[Platform]) -> String {
    if platforms.is_empty() {
        return "none".to_owned();
    }
    platforms
        .iter()
        .map(Platform::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

fn said(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(": {message}")
    }
}

/// Docker Hub is the registry that `docker login` means by itself.
fn login_argument(host: &str) -> String {
    if host == "registry-1.docker.io" {
        String::new()
    } else {
        format!(" {host}")
    }
}

impl RegistryError {
    /// Whether the same request may succeed when it is made again.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Interrupted { .. } => true,
            Self::Refused { status, .. } => *status == 408 || *status == 429 || *status >= 500,
            _ => false,
        }
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// A request that got no answer, or whose answer broke off.
    pub(crate) fn from_request(what: &str, host: &str, error: &reqwest::Error) -> Self {
        let (what, host) = (what.to_owned(), host.to_owned());
        if error.is_redirect() {
            let message = "redirects without end".to_owned();
            return Self::Refused {
                what,
                status: 310,
                message,
                retry_after: None,
            };
        }
        match tls_error(error) {
            Some(rustls::Error::InvalidMessage(_)) => return Self::PlainHttp { what, host },
            Some(tls) => {
                return Self::Tls {
                    what,
                    host,
                    cause: tls.to_string(),
                };
            }
            None => {}
        }
        if error.is_timeout() && !error.is_connect() {
            return Self::TimedOut { what, host };
        }
        let cause = innermost(error);
        if error.is_connect() {
            return Self::Unreachable { what, host, cause };
        }
        if error.is_builder() {
            return Self::Config(format!("{what}: {cause}"));
        }
        Self::Interrupted { what, cause }
    }

    /// An error of the client library. `tried` says which credentials were shown.
    pub(crate) fn from_client(
        what: &str,
        host: &str,
        tried: &str,
        error: OciDistributionError,
    ) -> Self {
        let denied = |message: String| Self::Unauthorized {
            what: what.to_owned(),
            host: host.to_owned(),
            tried: tried.to_owned(),
            message,
        };
        match error {
            OciDistributionError::RequestError(error) => Self::from_request(what, host, &error),
            OciDistributionError::UnauthorizedError { .. } => denied(String::new()),
            OciDistributionError::ServerError {
                code: 401 | 403,
                message,
                ..
            } => denied(registry_message(message.as_bytes())),
            OciDistributionError::ServerError { code, message, .. } => {
                Self::from_status(what, code, message.as_bytes(), None)
            }
            OciDistributionError::RegistryError { envelope, .. } => {
                from_envelope(what, &denied, &envelope)
            }
            OciDistributionError::ImageManifestNotFoundError(_) => Self::NotFound {
                what: what.to_owned(),
            },
            OciDistributionError::DigestError(cause) => Self::Damaged {
                what: what.to_owned(),
                cause: cause.to_string(),
            },
            other => Self::Document {
                what: what.to_owned(),
                cause: other.to_string(),
            },
        }
    }

    /// An answer that isn't success, other than a refusal for want of authorization.
    pub(crate) fn from_status(
        what: &str,
        status: u16,
        body: &[u8],
        retry_after: Option<Duration>,
    ) -> Self {
        if status == 404 {
            return Self::NotFound {
                what: what.to_owned(),
            };
        }
        Self::Refused {
            what: what.to_owned(),
            status,
            message: registry_message(body),
            retry_after,
        }
    }
}

/// The client library drops the status where the body is an error document; its code tells.
fn from_envelope(
    what: &str,
    denied: &dyn Fn(String) -> RegistryError,
    envelope: &oci_client::errors::OciEnvelope,
) -> RegistryError {
    use oci_client::errors::OciErrorCode as Code;
    let message = envelope
        .errors
        .iter()
        .map(|error| error.message.clone())
        .collect::<Vec<_>>()
        .join("; ");
    let message = shorten(&message);
    match envelope.errors.first().map(|error| &error.code) {
        Some(Code::BlobUnknown | Code::ManifestUnknown | Code::NameUnknown | Code::NotFound) => {
            RegistryError::NotFound {
                what: what.to_owned(),
            }
        }
        Some(Code::Unauthorized | Code::Denied) => denied(message),
        Some(Code::Toomanyrequests) => RegistryError::Refused {
            what: what.to_owned(),
            status: 429,
            message,
            retry_after: None,
        },
        _ => RegistryError::Refused {
            what: what.to_owned(),
            status: 400,
            message,
            retry_after: None,
        },
    }
}

/// What a registry says in its error document (distribution specification, "Error codes"), else the text itself.
pub(crate) fn registry_message(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Envelope {
        errors: Vec<Entry>,
    }
    #[derive(serde::Deserialize)]
    struct Entry {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let text = match serde_json::from_slice::<Envelope>(body) {
        Ok(envelope) => {
            let entries = envelope
                .errors
                .iter()
                .map(|entry| match entry.message.as_str() {
                    "" => entry.code.to_lowercase(),
                    message => message.to_owned(),
                });
            entries.collect::<Vec<_>>().join("; ")
        }
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    shorten(&text)
}

/// One line of at most 300 characters without control characters: a registry's text goes to terminals and logs.
fn shorten(text: &str) -> String {
    let line = text
        .trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c });
    line.take(300).collect()
}

/// The TLS library's error among the causes, if there is one. It hides inside an I/O error.
fn tls_error(error: &reqwest::Error) -> Option<&rustls::Error> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(tls) = current.downcast_ref::<rustls::Error>() {
            return Some(tls);
        }
        if let Some(tls) = current.downcast_ref::<std::io::Error>().and_then(inner_tls) {
            return Some(tls);
        }
        cause = current.source();
    }
    None
}

fn inner_tls(error: &std::io::Error) -> Option<&rustls::Error> {
    let inner = error.get_ref()?;
    inner
        .downcast_ref::<rustls::Error>()
        .or_else(|| inner.downcast_ref::<std::io::Error>().and_then(inner_tls))
}

/// The last cause: the ones around it only say that a request failed.
fn innermost(error: &reqwest::Error) -> String {
    let mut current: &dyn std::error::Error = error;
    while let Some(next) = current.source() {
        current = next;
    }
    current.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_is_quoted_briefly() {
        let check = |body: &str, expected: &str| {
            assert_eq!(registry_message(body.as_bytes()), expected, "{body}")
        };
        check(
            r#"{"errors":[{"code":"DENIED","message":"requested access is denied"}]}"#,
            "requested access is denied",
        );
        check(r#"{"errors":[{"code":"DENIED"}]}"#, "denied");
        check("<html>\x1b[31m", "<html> [31m");
        check("", "");
        assert_eq!(registry_message("x".repeat(1000).as_bytes()).len(), 300);
    }

    #[test]
    fn a_missing_platform_lists_what_is_there() {
        let platform = |text: &str| text.parse().expect("the test's platforms are well formed");
        let error = RegistryError::NoSuchPlatform {
            reference: "docker.io/library/a:latest".to_owned(),
            platform: platform("linux/s390x"),
            available: vec![platform("linux/amd64"), platform("linux/arm64")],
        };
        let text = error.to_string();
        assert!(
            text.ends_with("not found (the image has linux/amd64, linux/arm64)"),
            "{text}"
        );
    }
}
