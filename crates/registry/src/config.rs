//! How registries are spoken to.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::Retry;

/// The section `registry` of the configuration, and what one build adds to it (`registry.insecure`).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RegistryConfig {
    /// Hosts (with port) whose certificate isn't checked and which may speak plain HTTP. Loopback addresses may always
    /// speak plain HTTP.
    pub insecure: BTreeSet<String>,
    /// Certificates (PEM) to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Downloads at one time from one registry, and as many uploads. BuildKit's `maxRegistryConcurrency`.
    pub max_concurrency: usize,
    /// How long connecting may take.
    #[serde(skip)]
    pub connect_timeout: Duration,
    /// How long a registry may be silent in the middle of an answer.
    #[serde(skip)]
    pub read_timeout: Duration,
    /// What is tried again.
    #[serde(skip)]
    pub retry: Retry,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            insecure: BTreeSet::new(),
            ca_file: None,
            max_concurrency: 4,
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(60),
            retry: Retry::default(),
        }
    }
}

impl RegistryConfig {
    pub(crate) fn is_insecure(&self, host: &str) -> bool {
        self.insecure.contains(host)
    }
}

/// Whether `host` (with or without port) is this machine: `localhost`, 127.0.0.0/8, `::1`.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name == "localhost"
        || name
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_addresses_are_known() {
        let check = |host: &str, expected: bool| assert_eq!(is_loopback(host), expected, "{host}");
        check("localhost", true);
        check("localhost:5000", true);
        check("127.0.0.1:5000", true);
        check("127.9.9.9", true);
        check("[::1]:5000", true);
        check("10.0.0.1:5000", false);
        check("localhost.example", false);
        check("registry-1.docker.io", false);
    }
}
