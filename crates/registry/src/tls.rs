//! The HTTP clients of one registry, with the certificates they trust.

use std::sync::{Once, OnceLock};

use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};

use crate::config::is_loopback;
use crate::{RegistryConfig, RegistryError};

/// Makes ring the process's TLS provider, unless there is one already.
pub fn install_crypto_provider() {
    static INSTALLED: Once = Once::new();
    // An error only says that the process has a provider, which is as good.
    INSTALLED.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
}

/// How a registry is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// HTTPS, the certificate checked.
    Checked,
    /// HTTPS, any certificate.
    Unchecked,
    /// Plain HTTP.
    Plain,
}

impl Transport {
    pub(crate) fn scheme(self) -> &'static str {
        match self {
            Self::Checked | Self::Unchecked => "https",
            Self::Plain => "http",
        }
    }
}

/// The client library for blobs, and a plain client for what the library can't do. See `host.rs`.
pub(crate) struct Clients {
    pub(crate) http: reqwest::Client,
    oci: OnceLock<oci_client::Client>,
    /// What the client library's client is made of.
    host: String,
    transport: Transport,
    config: RegistryConfig,
    authorities: Vec<Vec<u8>>,
}

const USER_AGENT: &str = concat!("buildyard/", env!("CARGO_PKG_VERSION"));

impl Clients {
    pub(crate) fn new(
        host: &str,
        config: &RegistryConfig,
        transport: Transport,
    ) -> Result<Self, RegistryError> {
        install_crypto_provider();
        let authorities = read_authorities(config)?;
        let http = plain(host, config, transport, &authorities);
        Ok(Self {
            http: http.map_err(|cause| no_client(host, &cause))?,
            oci: OnceLock::new(),
            host: host.to_owned(),
            transport,
            config: config.clone(),
            authorities,
        })
    }

    /// The client library's client, made when the first blob travels: it reads all certificates of the system, whether it
    /// will need them or not, and most builds move no blob.
    pub(crate) fn oci(&self) -> Result<&oci_client::Client, RegistryError> {
        if self.oci.get().is_none() {
            let made = library(&self.config, self.transport, &self.authorities);
            let made = made.map_err(|cause| no_client(&self.host, &cause))?;
            // Where somebody else has just made one, that one stays: it may have credentials by now.
            drop(self.oci.set(made));
        }
        Ok(self.oci.get().expect("it was set above"))
    }
}

fn no_client(host: &str, cause: &str) -> RegistryError {
    RegistryError::Config(format!(
        "no HTTP client for {host}: {cause}; are the system's certificates installed (ca-certificates)?"
    ))
}

fn plain(
    host: &str,
    config: &RegistryConfig,
    transport: Transport,
    authorities: &[Vec<u8>],
) -> Result<reqwest::Client, String> {
    // Plain HTTP needs no certificates, so a machine that has none can still use it.
    let mut http = reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .connect_timeout(config.connect_timeout)
        .read_timeout(config.read_timeout)
        .danger_accept_invalid_certs(transport != Transport::Checked);
    if is_loopback(host) {
        http = http.no_proxy();
    }
    for pem in authorities {
        let certificates =
            reqwest::Certificate::from_pem_bundle(pem).map_err(|cause| cause.to_string())?;
        http = http.tls_certs_merge(certificates);
    }
    http.build().map_err(|cause| cause.to_string())
}

fn library(
    config: &RegistryConfig,
    transport: Transport,
    authorities: &[Vec<u8>],
) -> Result<oci_client::Client, String> {
    let certificate = |pem: &Vec<u8>| Certificate {
        encoding: CertificateEncoding::Pem,
        data: pem.clone(),
    };
    let client = oci_client::Client::try_from(ClientConfig {
        protocol: if transport == Transport::Plain {
            ClientProtocol::Http
        } else {
            ClientProtocol::Https
        },
        accept_invalid_certificates: transport != Transport::Checked,
        use_monolithic_push: true,
        extra_root_certificates: authorities.iter().map(certificate).collect(),
        platform_resolver: None,
        read_timeout: Some(config.read_timeout),
        connect_timeout: Some(config.connect_timeout),
        user_agent: USER_AGENT,
        ..ClientConfig::default()
    });
    client.map_err(|cause| cause.to_string())
}

/// The file's certificates, one PEM text each.
fn read_authorities(config: &RegistryConfig) -> Result<Vec<Vec<u8>>, RegistryError> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    let Some(path) = &config.ca_file else {
        return Ok(Vec::new());
    };
    let refuse =
        |cause: String| RegistryError::Config(format!("ca-file {}: {cause}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|cause| refuse(cause.to_string()))?;
    let found: Vec<_> = text
        .split(BEGIN)
        .skip(1)
        .map(|rest| format!("{BEGIN}{rest}").into_bytes())
        .collect();
    if found.is_empty() {
        return Err(refuse("no certificate in PEM form".to_owned()));
    }
    Ok(found)
}
