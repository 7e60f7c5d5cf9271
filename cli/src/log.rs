//! The servers' log: lines on standard error, chosen by `BUILDYARD_LOG` (`info`, `buildyard_coordinator=debug`, …), as JSON
//! with `BUILDYARD_LOG_FORMAT=json`.

use tracing_subscriber::EnvFilter;

/// Starts logging. Once per process.
pub(crate) fn start() {
    let filter =
        EnvFilter::try_from_env("BUILDYARD_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let json = std::env::var("BUILDYARD_LOG_FORMAT").is_ok_and(|format| format == "json");
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // A second start would be refused; the first one serves.
    let _ = if json {
        builder.json().try_init()
    } else {
        builder.try_init()
    };
}
