//! The endpoint: listening sockets, TLS, and one HTTP server on each connection that speaks HTTP/1.1 and HTTP/2 alike.
//!
//! Which of the two a client speaks is told by the connection's first bytes, never by ALPN: buildx wraps its TLS socket
//! without it.

mod address;
mod connection;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use address::{Address, ParseAddressError};
pub use tls::{TlsError, TlsFiles};

/// Where and how to listen.
#[derive(Debug, Clone, Default)]
pub struct EndpointConfig {
    /// Addresses; at least one.
    pub listen: Vec<Address>,
    /// Certificate, key, and the CA that clients' certificates must come from.
    pub tls: Option<TlsFiles>,
    /// Serve beyond loopback without asking who is there.
    pub allow_unauthenticated: bool,
}

/// Why the endpoint cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// An address beyond this machine, open to everybody.
    #[error(
        "{0} can be reached from other machines: give --tls-cert, --tls-key and --client-ca, or --allow-unauthenticated"
    )]
    Unprotected(Address),
    /// The socket cannot be opened.
    #[error("listening on {0}")]
    Listen(Address, #[source] std::io::Error),
    /// The certificate files cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

enum Listener {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        /// Removes the socket's file in the end.
        _file: address::UnixSocketFile,
    },
}

/// Open sockets on which nothing is served yet.
pub struct Endpoint {
    listeners: Vec<Listener>,
    tls: Option<TlsAcceptor>,
    /// The addresses as they are, with real port numbers.
    pub addresses: Vec<Address>,
}

impl Endpoint {
    /// Opens all sockets.
    ///
    /// # Errors
    /// [`EndpointError`]: an address that must not be open to everybody, a socket or certificate that cannot be used.
    pub async fn open(config: &EndpointConfig) -> Result<Self, EndpointError> {
        let tls = config.tls.as_ref().map(TlsFiles::acceptor).transpose()?;
        let asks_for_certificates = config
            .tls
            .as_ref()
            .is_some_and(|files| files.client_ca.is_some());
        let mut endpoint = Self {
            listeners: Vec::new(),
            tls,
            addresses: Vec::new(),
        };
        for address in &config.listen {
            if !address.is_local() && !asks_for_certificates && !config.allow_unauthenticated {
                return Err(EndpointError::Unprotected(address.clone()));
            }
            let (listener, bound) = address
                .bind()
                .await
                .map_err(|error| EndpointError::Listen(address.clone(), error))?;
            endpoint.listeners.push(listener);
            endpoint.addresses.push(bound);
        }
        Ok(endpoint)
    }

    /// Serves until `cancel`, then lets connections finish their requests for `grace`, then closes them.
    pub async fn serve(self, router: Router, cancel: CancellationToken, grace: Duration) {
        let connections = TaskTracker::new();
        let closing = CancellationToken::new();
        let shared = Arc::new(connection::Shared {
            router,
            tls: self.tls,
            stopping: cancel.clone(),
            closing: closing.clone(),
        });
        let accepting = TaskTracker::new();
        for listener in self.listeners {
            accepting.spawn(connection::accept(
                listener,
                shared.clone(),
                connections.clone(),
            ));
        }
        accepting.close();
        accepting.wait().await;
        connections.close();
        if tokio::time::timeout(grace, connections.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                open = connections.len(),
                "closing connections whose requests did not end in time"
            );
            closing.cancel();
            connections.wait().await;
        }
    }
}
