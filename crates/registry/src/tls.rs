//! The HTTP clients of one registry, with the certificates they trust.

use std::sync::Once;

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
    pub(crate) oci: oci_client::Client,
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
        Self::trusting(host, config, transport, &authorities).map_err(|cause| {
            RegistryError::Config(format!(
                "no HTTP client for {host}: {cause}; are the system's certificates installed (ca-certificates)?"
            ))
        })
    }

    fn trusting(
        host: &str,
        config: &RegistryConfig,
        transport: Transport,
        authorities: &[Vec<u8>],
    ) -> Result<Self, String> {
        // Plain HTTP needs no certificates, so a machine that has none can still use it.
        let unchecked = transport != Transport::Checked;
        let mut http = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(config.connect_timeout)
            .read_timeout(config.read_timeout)
            .danger_accept_invalid_certs(unchecked);
        if is_loopback(host) {
            http = http.no_proxy();
        }
        for pem in authorities {
            let certificates =
                reqwest::Certificate::from_pem_bundle(pem).map_err(|cause| cause.to_string())?;
            http = http.tls_certs_merge(certificates);
        }
        let certificate = |pem: &Vec<u8>| Certificate {
            encoding: CertificateEncoding::Pem,
            data: pem.clone(),
        };
        let oci = oci_client::Client::try_from(ClientConfig {
            protocol: if transport == Transport::Plain {
                ClientProtocol::Http
            } else {
                ClientProtocol::Https
            },
            accept_invalid_certificates: unchecked,
            use_monolithic_push: true,
            extra_root_certificates: authorities.iter().map(certificate).collect(),
            platform_resolver: None,
            read_timeout: Some(config.read_timeout),
            connect_timeout: Some(config.connect_timeout),
            user_agent: USER_AGENT,
            ..ClientConfig::default()
        });
        Ok(Self {
            http: http.build().map_err(|cause| cause.to_string())?,
            oci: oci.map_err(|cause| cause.to_string())?,
        })
    }
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
