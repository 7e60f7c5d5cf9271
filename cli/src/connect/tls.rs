//! The client side of TLS: the farm's certificate authority, and the certificate to show.

use std::path::Path;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::ConnectError;
use crate::args::FarmArgs;

/// Reads the files that `args` names and makes a configuration that speaks `alpn`.
///
/// # Errors
/// A file that cannot be read or holds no certificate or key; a key that does not fit its certificate.
pub(super) fn config(args: &FarmArgs, alpn: &[u8]) -> Result<Arc<ClientConfig>, ConnectError> {
    let builder =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(ConnectError::Tls)?
            .with_root_certificates(roots(args.ca.as_deref())?);
    let mut config = match (&args.cert, &args.key) {
        (Some(cert), Some(key)) => {
            let key_der = PrivateKeyDer::from_pem_file(key).map_err(|e| pem_error(key, &e))?;
            builder
                .with_client_auth_cert(certificates(cert)?, key_der)
                .map_err(ConnectError::Tls)?
        }
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok(Arc::new(config))
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, ConnectError> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(ConnectError::Tls)?;
            }
        }
        None => {
            // Certificates of the system that rustls cannot read are passed over, as browsers do.
            let _ = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ConnectError> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| pem_error(path, &error))?;
    if certificates.is_empty() {
        return Err(ConnectError::Pem {
            path: path.into(),
            reason: "it holds no certificate".into(),
        });
    }
    Ok(certificates)
}

fn pem_error(path: &Path, error: &rustls_pki_types::pem::Error) -> ConnectError {
    ConnectError::Pem {
        path: path.into(),
        reason: error.to_string(),
    }
}
