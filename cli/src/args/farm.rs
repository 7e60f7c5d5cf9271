//! Which farm a command talks to, and with which certificates.

use std::path::PathBuf;

use clap::Args;

/// The flags of every command that talks to a farm.
#[derive(Debug, Clone, Default, Args)]
pub struct FarmArgs {
    /// The farm's URL: http://HOST:PORT, https://HOST:PORT, tcp://HOST:PORT or unix://PATH
    /// [default: 127.0.0.1:8372, where `buildyard up` listens]
    #[arg(
        long,
        value_name = "URL",
        env = "BUILDYARD_BUILDER",
        help_heading = "Farm"
    )]
    pub builder: Option<String>,
    /// The certificate authority (PEM) that the farm's certificate must come from, instead of the system's
    #[arg(long, value_name = "FILE", env = "BUILDYARD_CA", help_heading = "Farm")]
    pub ca: Option<PathBuf>,
    /// The certificate (PEM) to show to the farm
    #[arg(
        long,
        value_name = "FILE",
        env = "BUILDYARD_CERT",
        requires = "key",
        help_heading = "Farm"
    )]
    pub cert: Option<PathBuf>,
    /// The key (PEM) of --cert
    #[arg(
        long,
        value_name = "FILE",
        env = "BUILDYARD_KEY",
        requires = "cert",
        help_heading = "Farm"
    )]
    pub key: Option<PathBuf>,
}
