//! `/metrics` in the OpenMetrics text format.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Shared;

/// The state of the farm at this moment.
pub(super) async fn metrics(State(shared): State<Shared>) -> impl IntoResponse {
    let mut registry = Registry::with_prefix("buildyard");
    let builds: Gauge = Gauge::default();
    builds.set(i64::try_from(shared.api.builds().len()).unwrap_or(i64::MAX));
    registry.register("builds_running", "Builds under way", builds);
    let jobs = Family::<[(&'static str, &'static str); 1], Gauge>::default();
    let (waiting, assigned) = shared.farm.jobs();
    jobs.get_or_create(&[("state", "waiting")])
        .set(i64::try_from(waiting).unwrap_or(i64::MAX));
    jobs.get_or_create(&[("state", "assigned")])
        .set(i64::try_from(assigned).unwrap_or(i64::MAX));
    registry.register("jobs", "Jobs by state; waiting ones want a worker", jobs);
    let workers = Family::<[(&'static str, String); 1], Gauge>::default();
    for offer in shared.farm.connected() {
        for platform in offer
            .native
            .iter()
            .chain(offer.emulated.iter().map(|(platform, _)| platform))
        {
            workers
                .get_or_create(&[("platform", platform.to_string())])
                .inc();
        }
    }
    registry.register(
        "workers_connected",
        "Connected workers that run a platform",
        workers,
    );
    let mut text = String::new();
    // Writing into a string does not fail.
    let _ = encode(&mut text, &registry);
    (
        [(
            CONTENT_TYPE,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        )],
        text,
    )
}
